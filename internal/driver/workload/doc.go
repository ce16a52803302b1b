// Package workload makes, keeps and removes the links of workloads: for each a pair of devices, of which one is in the
// workload's network namespace and one on the node, with addresses, routes and neighbours on both sides.
//
// The kernel is the record: what a link is for stands in the alias of the node's device (alias.go), and nowhere else. A link
// is ours if it is a veth whose name follows from what its alias says. No other link is changed or removed, and of routes
// only those of rtnetlink.RouteProtocol by such links.
//
// It promises that Add makes all of a link or nothing, and that no packet passes before all of it stands; that an agent
// which is killed leaves nothing that the next one does not recognise, finish or remove; that Leave ends the use of addresses
// before it returns; and that the end of a link, by DEL or otherwise, is told exactly once.
//
// Driver (driver.go) keeps in memory what it knows of links, as a list of the kernel's devices (read.go) and notifications
// (watch.go) tell it. add.go and leave.go make and remove links, apply.go keeps their routes and neighbours, check.go says
// what is wrong with one. rules.go keeps the tables of nftables that table.go declares. Messages (messages.go) go to the kernel many at a time, by internal/rtnetlink.
package workload
