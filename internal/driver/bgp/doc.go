// Package bgp speaks BGP with routers and other nodes: the part of a plan that says which of this node's blocks are announced, to whom,
// and which routes are believed.
//
// It runs gobgp in this process, and only where the plan has peers: without any, nothing listens. gobgp hands what one router said to
// the next unless a policy forbids it, so that this package sets one for each direction before the first peer comes (policy.go). They
// say what compile.BGP.Imports and Exports say.
//
// The driver programs no route. It tells of those that it learned (Learned), and another driver puts them into the kernel. Close ends
// all without a word to the peers, which keep the routes of this node meanwhile (graceful restart, RFC 4724). Cleanup says goodbye.
//
// Where BFD watches a peer, a table of nftables stands beside (guard.go), which is all that the driver has in the kernel.
//
// gobgp keeps two settings in variables of its package, so that a process has one driver, or several that want the same.
package bgp
