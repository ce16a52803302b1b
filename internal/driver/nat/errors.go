package nat

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
