package nft

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// UnsupportedError says that the kernel lacks something without which nothing can be programmed.
type UnsupportedError struct {
	Feature string // such as "nat chains (module nft_chain_nat)"
	Err     error  // what the kernel said
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the kernel has no %s; Linux 5.10 or later with nf_tables is needed: %v", e.Feature, e.Err)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// unsupported makes err an UnsupportedError if it is one of the numbers by which a kernel says so.
func unsupported(feature string, err error, numbers ...unix.Errno) error {
	var errno unix.Errno
	if errors.As(err, &errno) && slices.Contains(numbers, errno) {
		return &UnsupportedError{Feature: feature, Err: err}
	}
	return err
}

// refusal is the kernel's answer to one message that it did not carry out. The transaction that the
// message was part of has changed nothing.
type refusal struct {
	doing string // what the message was to do, with the object's name
	errno unix.Errno
	text  string // the kernel's own words, mostly ""
}

func (e *refusal) Error() string {
	s := e.doing + ": " + e.errno.Error()
	if e.text != "" {
		s += " (" + e.text + ")"
	}
	if e.errno == unix.EPERM {
		s += "; this needs the capability CAP_NET_ADMIN in the network namespace"
	}
	return s
}

func (e *refusal) Unwrap() error { return e.errno }

// errInterrupted says that the ruleset changed while it was read.
var errInterrupted = errors.New("the ruleset changed while it was read")

// hopeless says whether a second try, from what the kernel then holds, would fail in the same way.
func hopeless(err error) bool {
	var missing *UnsupportedError
	var owned *OwnedError
	return errors.As(err, &missing) || errors.As(err, &owned) || errors.Is(err, unix.EPERM)
}

// isAbsent says whether the kernel answered that there is no such thing.
func isAbsent(err error) bool { return errors.Is(err, unix.ENOENT) }
