package nat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
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

// Check looks for what time does not mend, and changes nothing: a kernel that is too old or lacks a feature
// (*nfnetlink.UnsupportedError), and a process that may not change it (*CapabilityError). What may pass, such
// as a table that another process owns, is left to Apply.
func (d *Driver) Check(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.check(ctx)
	var missing *nfnetlink.UnsupportedError
	var capability *CapabilityError
	if err == nil || errors.As(err, &missing) || errors.As(err, &capability) {
		return err
	}
	d.log.Warn("looking for kernel features failed; applying the plan will tell", "error", err)
	return ctx.Err()
}

func (d *Driver) check(ctx context.Context) error {
	if release, err := kernelRelease(); err != nil {
		return err
	} else if err := checkRelease(release); err != nil {
		return err
	}
	_, err := d.conn.generation(ctx)
	switch {
	case errors.Is(err, unix.EPERM):
		return &CapabilityError{Err: err}
	case err != nil:
		return err
	}
	return d.rehearse(ctx)
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

// rehearse has the kernel go through a transaction with everything that a plan may ask of it, and drop it:
// its last message deletes what is not there. It needs no rehearsal where our table stands already.
func (d *Driver) rehearse(ctx context.Context) error {
	t, _, err := d.conn.readTable(ctx)
	if err != nil || t.present {
		return err
	}
	wanted, err := layout(rehearsal())
	if err != nil {
		return fmt.Errorf("laying out a rehearsal: %w", err)
	}
	wanted.flags = flagDormant // no hook is touched, not even for a moment
	b := newBatch(d.conn.Seq + 1)
	b.write(diff(t, wanted))
	b.named(unix.NFT_MSG_DELSET, 0, endingRehearsal, unix.NFTA_SET_NAME, "rehearsal")
	if _, err := d.conn.transact(ctx, b); !endedRehearsal(err) {
		return fmt.Errorf("rehearsing a transaction: %w", err)
	}
	return nil
}

// endedRehearsal says whether all went well but the message that was to fail.
func endedRehearsal(err error) bool {
	var r *nfnetlink.Refusal
	return errors.As(err, &r) && r.Doing == endingRehearsal
}

// rehearsal is a plan in which every kind of rule and set occurs.
func rehearsal() compile.NAT {
	four, six := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")
	return compile.NAT{
		Sources: []compile.Source{{Range: netipx.RangeOfPrefix(four)}, {Range: netipx.RangeOfPrefix(six)}},
		Exempt:  []netipx.IPRange{netipx.RangeOfPrefix(four), netipx.RangeOfPrefix(six)},
		To4:     four.Addr().Next(), // and IPv6 to the interface's address
		Ports:   model.PortRange{First: 1024, Last: 65535}, UDPPorts: model.PortRange{First: 1024, Last: 65535},
		OutInterfaces: []string{"rehearsal"},
		Allocation:    model.PortsFullyRandom,
		LeakGuard:     true,
	}
}
