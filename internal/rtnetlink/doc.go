// Package rtnetlink speaks the netlink protocol of links, addresses, routes and neighbours: it writes many messages into one
// system call, says which of them the kernel refused, reads dumps, and follows notifications. It knows nothing of what the
// messages are for: drivers do.
//
// It exists beside github.com/vishvananda/netlink, whose every call waits for one message's answer: 10,000 routes, or the
// dozen messages of a workload's link, are a few system calls here. Sockets, and what all netlink protocols have in common,
// are those of internal/nfnetlink.
package rtnetlink
