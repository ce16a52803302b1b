package nat

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
)

// faultySocket passes calls on to a real socket, and makes one of them fail.
type faultySocket struct {
	nfnetlink.Socket
	calls int // of Send and Receive
	// fail is the number of the call that fails, from 1; 0 for none. Before says that a Send fails before
	// it reaches the kernel, and a Receive without taking anything.
	fail   int
	before bool
	err    error
	failed bool
}

// over puts the socket before one that works.
func (s *faultySocket) over(works nfnetlink.Socket) nfnetlink.Socket {
	s.Socket = works
	return s
}

// Send sends one datagram, unless it is its turn to fail.
func (s *faultySocket) Send(b []byte) error {
	s.calls++
	if s.calls == s.fail {
		s.failed = true
		if !s.before {
			_ = s.Socket.Send(b)
		}
		return s.err
	}
	return s.Socket.Send(b)
}

// Receive reads one datagram, unless it is its turn to fail.
func (s *faultySocket) Receive(b []byte) (int, error) {
	s.calls++
	if s.calls == s.fail {
		s.failed = true
		if !s.before {
			_, _ = s.Socket.Receive(b)
		}
		return 0, s.err
	}
	return s.Socket.Receive(b)
}

// SetDeadline shortens deadlines: what a test has made to vanish is not worth waiting for.
func (s *faultySocket) SetDeadline(t time.Time) error {
	return s.Socket.SetDeadline(minTime(t, time.Now().Add(100*time.Millisecond)))
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// watchedDriver opens a driver whose socket can be watched and made to fail, and that does not own its
// table.
func (n *namespace) watchedDriver() (*Driver, *faultySocket) {
	n.tb.Helper()
	faulty := &faultySocket{}
	return n.open(nftables.Options{Unowned: true, Wrap: faulty.over}), faulty
}

// TestEveryCallFailsOnce makes each call of the socket fail in turn, in each way, through a life of
// loading, changing, tampering and observing. However it fails, the next try must converge.
func TestEveryCallFailsOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name   string
		before bool
		err    error
	}{{"lost before", true, unix.ENOBUFS}, {"lost after", false, unix.ENOBUFS}, {"interrupted", true, unix.EINTR}} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				ns := newNamespace(t)
				d, s := ns.watchedDriver()
				s.fail, s.before, s.err = n, kind.before, kind.err
				live(t, ns, d)
				if !s.failed {
					if n < 20 {
						t.Errorf("a life had %d calls only", n)
					}
					return
				}
			}
		})
	}
}

// live takes a driver through a life and checks the kernel after each step.
func live(t *testing.T, ns *namespace, d *Driver) {
	t.Helper()
	plan := simplePlan(t)
	plan.LeakGuard = true
	eventually(t, ns, d, plan)
	plan.Sources = plan.Sources[1:]
	plan.OutInterfaces = []string{"eth0"}
	eventually(t, ns, d, plan)
	ns.nft("delete", "table", "inet", TableName)
	_, err := d.Observe(t.Context())
	if err != nil {
		_, err = d.Observe(t.Context())
	}
	if err != nil {
		t.Fatalf("observing a second time: %v", err)
	}
	eventually(t, ns, d, plan)
	if _, err := d.Counters(t.Context()); err != nil {
		if _, err := d.Counters(t.Context()); err != nil {
			t.Fatalf("counting a second time: %v", err)
		}
	}
	plan.Exempt = nil
	eventually(t, ns, d, plan)
}

// TestFailedObservationConfirmsNothing makes the look at the kernel fail just when the table is gone: the Apply that
// follows must not take for granted what it could not see.
func TestFailedObservationConfirmsNothing(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d, s := ns.watchedDriver()
	plan := simplePlan(t)
	mustApply(t, d, plan)
	ns.nft("delete", "table", "inet", TableName)
	s.fail, s.before, s.err = s.calls+1, true, unix.ENOBUFS
	if _, err := d.Observe(t.Context()); err == nil {
		t.Fatal("the fault was not met")
	}
	mustApply(t, d, plan)
	mustHold(t, ns, plan)
}

// TestApplyTellsWhatItMended changes the plan just when somebody has undone what stood. Flows may have been opened
// meanwhile that nobody translated, of which Apply alone knows.
func TestApplyTellsWhatItMended(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d, s := ns.watchedDriver()
	want := func(when string, mended bool) {
		t.Helper()
		if d.Mended() != mended {
			t.Errorf("%s: mended %t", when, !mended)
		}
		if d.Mended() {
			t.Errorf("%s: told twice", when)
		}
	}
	plan := simplePlan(t)
	mustApply(t, d, plan)
	want("at first", false)
	for _, script := range []string{"delete table inet " + TableName, "flush ruleset"} {
		ns.nft(script)
		if plan.Exempt = ranges(t, "10.0.0.0/8"); script == "flush ruleset" {
			plan.Exempt = nil
		}
		mustApply(t, d, plan)
		want(script, true)
		mustHold(t, ns, plan)
	}
	plan.Sources = plan.Sources[1:]
	s.fail, s.err = s.calls+2, unix.ENOBUFS // the answer to the transaction, which is carried out
	mustApply(t, d, plan)
	want("a lost answer", false)
	plan.Sources = nil
	s.fail, s.before = s.calls+1, true // the transaction does not come to the kernel
	mustApply(t, d, plan)
	want("a lost transaction", false)
	ns.nft("delete table inet " + TableName)
	if _, err := d.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustApply(t, d, plan)
	want("what Observe has told", false)
}

// eventually applies a plan, twice if need be. An Apply that reports success must have succeeded.
func eventually(t *testing.T, ns *namespace, d *Driver, plan compile.NAT) {
	t.Helper()
	err := d.Apply(t.Context(), plan)
	if err != nil {
		err = d.Apply(t.Context(), plan)
	}
	if err != nil {
		t.Fatalf("applying a second time: %v", err)
	}
	mustHold(t, ns, plan)
}

// TestUnknownOutcome checks that a transaction whose acknowledgement is lost is read back, not repeated.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d, s := ns.watchedDriver()
	plan := simplePlan(t)
	mustApply(t, d, plan)
	plan.Sources = plan.Sources[1:]
	before := d.Stats()
	s.fail, s.err = s.calls+2, unix.ENOBUFS // the first answer to the transaction
	mustApply(t, d, plan)
	after := d.Stats()
	if !s.failed || after.FullReads != before.FullReads+1 || after.Transactions != before.Transactions {
		t.Errorf("before %+v, after %+v; want one reading more and no other transaction", before, after)
	}
	mustHold(t, ns, plan)
}

// TestEveryCallFailsOnceWhileOwning makes each call of the socket fail in turn while a table is made,
// changed and taken over. The driver must find its own table again, and never hold it for another's.
func TestEveryCallFailsOnceWhileOwning(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{true, false} {
		for fail, failed := 1, true; failed; fail++ {
			ns, plan := newNamespace(t), simplePlan(t)
			faulty := &faultySocket{}
			d := ns.open(nftables.Options{Wrap: faulty.over})
			faulty.fail, faulty.before, faulty.err = fail, before, unix.ENOBUFS
			for step := range 2 {
				plan.Sources = plan.Sources[step:]
				var err error
				for range 3 {
					if err = d.Apply(t.Context(), plan); err == nil {
						break
					}
				}
				if err != nil {
					t.Fatalf("call %d fails (before: %t): %v", fail, before, err)
				}
			}
			needOwned(t, d)
			if now := ns.ownerOf(); now != faulty.PortID() {
				t.Fatalf("call %d fails (before: %t): port %d owns the table, not %d", fail, before, now, faulty.PortID())
			}
			failed = faulty.failed
		}
	}
}
