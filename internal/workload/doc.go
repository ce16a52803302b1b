// Package workload gives workloads their addresses and their links.
//
// A Manager serves the requests of the CNI plugin. It asks internal/ipam which address a workload gets, claims blocks where the
// node's own have none left, and has a driver make and remove the links. The kernel is the record: the Manager keeps nothing but
// what it can read there again, apart from the addresses that cool down.
//
// It promises that no address has two workloads, that a workload starts only once the kernel holds the rules of the pools
// that its addresses come from, and that an address is given out again only after the connections of the workload before
// have ended. It decides nothing about packets.
package workload
