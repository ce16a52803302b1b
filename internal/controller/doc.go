// Package controller writes in a cluster, from what the agents say in their SallyportNodes and by their Leases: the conditions of
// IPPools, whether each can give out addresses, and whether every ready node holds it; those of NATConfigurations, whether
// each decides anything, and whether the nodes that it selects go by it; and of a SallyportNode that nobody knows how the
// node stands, while its agent gives no sign of life.
//
// It promises that nothing about packets depends on it: without it, conditions grow old and nodes go on. It writes of pools
// where the definition of IPPools is Sallyport's own, nothing but these conditions, and only when status, reason or
// generation of one has changed, or, after a while, what is said of one that is not true. What the conditions should be
// is decided in judge.go, settings.go, seen.go and heartbeat.go, without I/O and clock.
package controller
