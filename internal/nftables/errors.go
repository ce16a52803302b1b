package nftables

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// hopeless says whether a second try, from what the kernel then holds, would fail in the same way.
func hopeless(err error) bool {
	var missing *nfnetlink.UnsupportedError
	var owned *OwnedError
	return errors.As(err, &missing) || errors.As(err, &owned) || errors.Is(err, unix.EPERM)
}

// isAbsent says whether the kernel answered that there is no such thing.
func isAbsent(err error) bool { return errors.Is(err, unix.ENOENT) }

// isRefusal says whether the kernel refused something in a transaction, perhaps of one part alone, and so
// changed nothing. A process that may not change anything, or not this table, need not try again in parts.
func isRefusal(err error) bool {
	var r *nfnetlink.Refusal
	var owned *OwnedError
	return errors.As(err, &r) && !errors.As(err, &owned) && !errors.Is(err, unix.EPERM)
}
