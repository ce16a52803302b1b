// Package cni is what the CNI plugin and the agent say to each other: one request and one answer a connection, over a
// unix socket. A document is JSON, with its length in 4 bytes (big endian) before it. File descriptors come with the first
// byte of a request.
//
// The plugin is started for each pod and must be small, so this package needs the standard library and x/sys alone. It
// holds no state. Bytes that it reads are judged strictly: a document that it does not understand whole is refused.
package cni

import (
	"errors"
	"net/netip"
	"time"
)

// Version is that of the protocol: it changes where an older plugin or agent would misunderstand a newer one.
const Version = 1

// Socket is where an agent listens for the plugin, unless told otherwise.
const Socket = "/run/sallyport/cni.sock"

// The verbs of CNI that the plugin passes on.
const (
	Add    = "ADD"
	Del    = "DEL"
	Check  = "CHECK"
	Status = "STATUS"
	GC     = "GC"
)

// The names of the two families in a request.
const (
	IPv4 = "IPv4"
	IPv6 = "IPv6"
)

// Codes of errors: those below 100 are CNI's, https://github.com/containernetworking/cni/blob/main/SPEC.md#error.
const (
	CodeEnvironment = 4  // a variable of the environment is wrong
	CodeConfig      = 7  // the network configuration is wrong
	CodeNamespace   = 8  // the network namespace is wrong
	CodeTryAgain    = 11 // for the moment
	CodeUnavailable = 50 // no pod can be added now
	CodeLimited     = 51 // no pod can be added now, and those that run may not be reachable
	CodeFailed      = 100
	CodeProtocol    = 101 // plugin and agent are of versions that do not understand each other
)

// Request is what the plugin asks for.
type Request struct {
	Version int    // of the protocol
	Verb    string // one of ADD, DEL, CHECK, STATUS, GC
	// Network is the name of the network configuration; ContainerID and Interface, which STATUS and GC lack, are
	// CNI_CONTAINERID and CNI_IFNAME.
	Network     string
	ContainerID string `json:",omitempty"`
	Interface   string `json:",omitempty"`
	// Namespace, Pod and UID are those of the pod; empty where no Kubernetes started it.
	Namespace string `json:",omitempty"`
	Pod       string `json:",omitempty"`
	UID       string `json:",omitempty"`
	// Families are the ones of which ADD must give an address, IPv4 first. Empty: those of the pools that serve.
	Families []string `json:",omitempty"`
	// Addresses are those that ADD must give; at most one of each family.
	Addresses []netip.Addr `json:",omitempty"`
	// MTU is that of the pod's interface, in bytes. 0: the agent's.
	MTU int `json:",omitempty"`
	// Attachments are, for GC, all that the runtime still has in this network.
	Attachments []Attachment `json:",omitempty"`
	// Prev is, for CHECK, what ADD answered.
	Prev *Result `json:",omitempty"`
}

// Attachment is one interface of one container.
type Attachment struct {
	ContainerID string
	Interface   string
}

// Link is one end of the pair of devices that joins a pod with its node.
type Link struct {
	Name string
	MAC  string
	MTU  int // in bytes; 0: not known
}

// Result is what ADD has made.
type Result struct {
	Host, Pod Link
	// Addresses are the pod's, IPv4 first.
	Addresses []netip.Addr
	// Gateway4 and Gateway6 are the next hops of the pod's default routes; invalid for a family that it lacks.
	Gateway4, Gateway6 netip.Addr
}

// Error is an answer that says no.
type Error struct {
	Code    uint // see the constants
	Message string
	Details string `json:",omitempty"`
}

func (e *Error) Error() string {
	if e.Details == "" {
		return e.Message
	}
	return e.Message + ": " + e.Details
}

// Answer is what the agent replies: what ADD has made, an error, or nothing, which says that it is done.
type Answer struct {
	Result *Result `json:",omitempty"`
	Error  *Error  `json:",omitempty"`
}

// ErrAway says that no agent answers on the socket, so that it has seen nothing of the request.
var ErrAway = errors.New("the Sallyport agent does not answer")

// ErrLost says that the agent went away with the request, of which it may have done anything or nothing.
var ErrLost = errors.New("the Sallyport agent went away before it answered")

// Patience is how long the agent works at most on a request with this verb.
func Patience(verb string) time.Duration {
	switch verb {
	case Add, GC:
		return time.Minute
	case Status:
		return 5 * time.Second
	default:
		return 30 * time.Second // as many as a node has can go at once, on one that has much else to do
	}
}

// Files is how many descriptors come with a request with this verb: for ADD and CHECK the network namespace, and a socket of
// rtnetlink that was opened inside of it. By these the agent reaches into the pod without the right to enter namespaces.
func Files(verb string) int {
	if verb == Add || verb == Check {
		return 2
	}
	return 0
}
