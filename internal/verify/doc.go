// Package verify finds out from outside whether an address is kept all the way: it has a server, which says which address
// and port a request came from, and a client, which gathers evidence on the node.
//
// Both speak STUN Binding (RFC 8489) over UDP and TCP, so that the client gets along with third-party servers, which tell
// less. Judge is a pure function of the evidence: each sentence of a finding names what was seen.
//
// The server never sends more bytes than it got, sends answers of a given TTL or size only to an address that has returned its
// cookie, takes ten requests a second from a source, and keeps nothing longer than two minutes. The client changes nothing: it
// opens sockets, in the network namespace of a pod where it is told to, and reads the node's conntrack table.
//
// stun.go has the messages, evidence.go and judge.go what follows from what; server*.go serve; the rest gathers.
package verify
