// Package controller writes the conditions of IPPools in a cluster: whether each can give out addresses, and whether
// every ready node holds it, from what the agents say in their SallyportNodes.
//
// It promises that nothing about packets depends on it: without it, conditions grow old and nodes go on. It writes
// where the definition of IPPools is Sallyport's own, nothing but the two conditions, and only when status, reason
// or generation of one has changed. What the conditions should be is decided in judge.go, without I/O and clock.
package controller
