package nftables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// The oldest kernel that is supported: what is asked of older ones was never tried.
const oldestMajor, oldestMinor = 5, 10

// CapabilityError says that this process may not change netfilter in its network namespace.
type CapabilityError struct {
	Err error // what the kernel said
}

func (e *CapabilityError) Error() string {
	return "the capability CAP_NET_ADMIN is missing in this network namespace: run as root; in a systemd unit, set " +
		"AmbientCapabilities=CAP_NET_ADMIN; in a container, add NET_ADMIN to securityContext.capabilities (docker run --cap-add NET_ADMIN): " + e.Err.Error()
}

func (e *CapabilityError) Unwrap() error { return e.Err }

// Check looks for what time does not heal, and changes nothing. The rehearsal is a table in which every kind of chain,
// rule and set occurs that may be wanted. It finds a kernel that is too old or lacks a feature
// (*nfnetlink.UnsupportedError), and a process that may not change it (*CapabilityError). What may pass, such
// as a table that another process owns, is left to Apply.
func (e *Engine) Check(ctx context.Context, rehearsal *Table) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.check(ctx, rehearsal)
	var missing *nfnetlink.UnsupportedError
	var capability *CapabilityError
	if err == nil || errors.As(err, &missing) || errors.As(err, &capability) {
		return err
	}
	e.log.Warn("looking for kernel features failed; applying the plan will tell", "error", err)
	return ctx.Err()
}

func (e *Engine) check(ctx context.Context, rehearsal *Table) error {
	if release, err := kernelRelease(); err != nil {
		return err
	} else if err := checkRelease(release); err != nil {
		return err
	}
	_, err := e.conn.generation(ctx)
	switch {
	case errors.Is(err, unix.EPERM):
		return &CapabilityError{Err: err}
	case err != nil:
		return err
	}
	return e.rehearse(ctx, rehearsal)
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("asking for the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// checkRelease refuses a release such as "5.4.0-150-generic". What does not read as one passes.
func checkRelease(release string) error {
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	if n < 2 || major > oldestMajor || major == oldestMajor && minor >= oldestMinor {
		return nil
	}
	return &nfnetlink.UnsupportedError{Feature: "support for what Sallyport does", Err: errors.New("this is Linux " + release)}
}

// endingRehearsal is what the message does that makes the kernel refuse a rehearsal.
const endingRehearsal = "ending a rehearsal"

// rehearse has the kernel go through a transaction with everything that a table may ask of it, and drop it:
// its last message deletes what is not there. It needs no rehearsal where our table stands already.
func (e *Engine) rehearse(ctx context.Context, rehearsal *Table) error {
	t, _, err := e.conn.readTable(ctx)
	if err != nil || t.present {
		return err
	}
	wanted, err := e.prepare(rehearsal)
	if err != nil {
		return err
	}
	wanted.flags = flagDormant // no hook is touched, not even for a moment
	b := e.conn.newBatch()
	b.write(diff(t, wanted))
	b.named(unix.NFT_MSG_DELSET, 0, endingRehearsal, unix.NFTA_SET_NAME, "rehearsal")
	if _, err := e.conn.transact(ctx, b); !endedRehearsal(err) {
		return fmt.Errorf("rehearsing a transaction: %w", err)
	}
	return nil
}

// endedRehearsal says whether all went well but the message that was to fail.
func endedRehearsal(err error) bool {
	var r *nfnetlink.Refusal
	return errors.As(err, &r) && r.Doing == endingRehearsal
}
