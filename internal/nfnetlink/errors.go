package nfnetlink

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// ErrMalformed is what every parser returns, wrapped, for data that is not what the kernel would send.
var ErrMalformed = errors.New("malformed netlink data")

// ErrInterrupted says that what was dumped changed meanwhile, so that some may be missing or there twice.
var ErrInterrupted = errors.New("the kernel's table changed while it was read")

// UnsupportedError says that the kernel lacks something without which nothing can be programmed.
type UnsupportedError struct {
	Feature string // such as "nat chains (module nft_chain_nat)"
	Err     error  // what the kernel said
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("the kernel has no %s; Linux 5.10 or later with nf_tables is needed: %v", e.Feature, e.Err)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// Unsupported makes err an UnsupportedError if it is one of the numbers by which a kernel says so.
func Unsupported(feature string, err error, numbers ...unix.Errno) error {
	var errno unix.Errno
	if errors.As(err, &errno) && slices.Contains(numbers, errno) {
		return &UnsupportedError{Feature: feature, Err: err}
	}
	return err
}

// Refusal is the kernel's answer to one message that it did not carry out. The transaction that the
// message was part of has changed nothing.
type Refusal struct {
	Doing string // what the message was to do, with the object's name
	Errno unix.Errno
	Text  string // the kernel's own words, mostly ""
}

func (e *Refusal) Error() string {
	s := e.Doing + ": " + e.Errno.Error()
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	if e.Errno == unix.EPERM {
		s += "; this needs the capability CAP_NET_ADMIN in the network namespace"
	}
	return s
}

func (e *Refusal) Unwrap() error { return e.Errno }
