// Package conntrack reads the flows that the kernel tracks, and ends those that must not live on after a
// change of plans.
//
// It promises bounded memory, however many flows there are: the table is read one datagram at a time, by one
// struct that is used over and over; only the numbers of flows that live under an older decision are kept. A
// flow is ended by deleting exactly its entry, named by tuple, zone and id, so that one which took its place
// meanwhile is not touched. It never changes an entry and never flushes the table. The only entries that it
// makes take the places of flows that it has ended (end.go says why), and go by themselves.
//
// table.go walks through the table, parse.go reads an entry, end.go ends flows, driver.go decides when to do
// which; what becomes of a flow is decided in internal/compile.
package conntrack
