// Package route holds the routes between nodes: the part of a plan that says where the blocks of addresses are.
//
// It owns the VXLAN devices sallyport.v4 and sallyport.v6 with all that stands on them, and in the main tables the routes of
// protocol 115 that have a gateway or are unreachable. The workload driver's routes have the same protocol and neither: they
// are to links. Routes and devices of others are never touched: where one stands in the way, an error names it.
//
// A change is few system calls, and only of what differs. What is wanted comes before what is not goes, so that an address is never
// without a route meanwhile: a block that has no way is unreachable, and what the kernel refuses becomes so, since its packets
// would leave by the default route otherwise. For the same reason, unreachable routes have a high metric: one to a workload that has
// the same prefix, and the route that comes in its place, win.
//
// Learned routes, which no plan has, are a Keeper's (learned.go).
//
// The driver also sees to it that the node forwards packets (sysctl.go).
package route
