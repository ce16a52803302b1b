package nat

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// tableNow reads our table by a socket of its own.
func (n *namespace) tableNow() *table {
	n.tb.Helper()
	s, err := nfnetlink.Dial(n.fd)
	if err != nil {
		n.tb.Fatal(err)
	}
	defer s.Close()
	t, _, err := newConn(s).readTable(n.tb.Context())
	if err != nil {
		n.tb.Fatal(err)
	}
	return t
}

// needOwned skips where the kernel cannot own tables.
func needOwned(t *testing.T, d *Driver) {
	t.Helper()
	if d.unowned {
		t.Skip("needs kernel 6.9: tables with the flags owner and persist")
	}
}

func TestOthersCannotChangeAnOwnedTable(t *testing.T) {
	t.Parallel()
	ns, plan := newNamespace(t), simplePlan(t)
	d := ns.owner()
	mustApply(t, d, plan)
	needOwned(t, d)
	for _, args := range []string{
		"delete table inet sallyport",
		"flush table inet sallyport",
		"delete chain inet sallyport postrouting",
		"flush set inet sallyport source4",
		"add element inet sallyport exempt4 { 192.0.2.0/24 }",
		"add rule inet sallyport translate drop",
		"add set inet sallyport x { type ipv4_addr; }",
	} {
		if out, err := ns.tryNFT(strings.Fields(args)...); err == nil || !strings.Contains(out, "Operation not permitted") {
			t.Errorf("nft %s: %v: %s; want it refused", args, err, out)
		}
	}
	ns.nft("flush", "ruleset") // of which an owned table is no part
	if drift, err := d.Observe(t.Context()); drift != 0 || err != nil {
		t.Errorf("after all that: %d differences, %v", drift, err)
	}
	plan.Sources = plan.Sources[:1]
	mustApply(t, d, plan)
	if now := ns.tableNow(); now.flags != flagsOwned || now.owner != d.conn.Socket.PortID() {
		t.Errorf("flags %#x, owner %d; want %#x and %d", now.flags, now.owner, flagsOwned, d.conn.Socket.PortID())
	}
}

func TestSecondOwnerIsRefusedAndThenTakesOver(t *testing.T) {
	t.Parallel()
	ns, plan := newNamespace(t), simplePlan(t)
	first, second := ns.owner(), ns.owner()
	mustApply(t, first, plan)
	needOwned(t, first)
	before := ns.tableNow()
	for what, err := range map[string]error{"applying": second.Apply(t.Context(), plan), "cleaning up": second.Cleanup(t.Context())} {
		var owned *OwnedError
		if !errors.As(err, &owned) || owned.PortID != first.conn.Socket.PortID() {
			t.Errorf("%s while another owns the table: %v", what, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if now := ns.tableNow(); now.flags != flagsOrphan || now.elements() != before.elements() || len(now.chains) != len(before.chains) {
		t.Errorf("after its owner ended, the table has flags %#x, %d ranges, %d chains", now.flags, now.elements(), len(now.chains))
	}
	mustApply(t, second, plan)
	if s := second.Stats(); s.Transactions != 1 || s.LastMessages != 1 || s.LastElements != 0 {
		t.Errorf("taking an equal table over: %+v; want one message", s)
	}
	if now := ns.tableNow(); now.flags != flagsOwned {
		t.Errorf("taken over, the table has flags %#x", now.flags)
	}
	if err := second.Cleanup(t.Context()); err != nil || ns.tableNow().present {
		t.Errorf("cleaning up our own table: %v", err)
	}
}

func TestOrphanCanBeCleanedUp(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	first := ns.owner()
	mustApply(t, first, simplePlan(t))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ns.owner().Cleanup(t.Context()); err != nil || ns.tableNow().present {
		t.Errorf("cleaning up what an ended agent left: %v", err)
	}
}

func TestTableWithoutOwnerIsReplacedByAnOwnedOne(t *testing.T) {
	t.Parallel()
	ns, plan := newNamespace(t), simplePlan(t)
	mustApply(t, ns.driver(), plan)
	d := ns.owner()
	mustApply(t, d, plan)
	needOwned(t, d)
	if s := d.Stats(); s.Transactions != 1 {
		t.Errorf("replaced in %d transactions, want 1", s.Transactions)
	}
	if now := ns.tableNow(); now.flags != flagsOwned {
		t.Errorf("flags %#x", now.flags)
	}
}

// oldKernel is a socket to a kernel that knows no owned tables: it asks the kernel for one more flag,
// which none knows, where a table is to be owned.
type oldKernel struct{ nfnetlink.Socket }

func (s oldKernel) Send(b []byte) error {
	for m, err := range nfnetlink.Messages(b) {
		if err != nil {
			return err
		}
		if m.Kind == subsystem|unix.NFT_MSG_NEWTABLE {
			for a, err := range m.Attributes() {
				if err == nil && a.Kind == unix.NFTA_TABLE_FLAGS {
					binary.BigEndian.PutUint32(a.Data, binary.BigEndian.Uint32(a.Data)|1<<31)
				}
			}
		}
	}
	return s.Socket.Send(b)
}

func TestKernelThatCannotOwn(t *testing.T) {
	t.Parallel()
	ns, plan := newNamespace(t), simplePlan(t)
	s, err := nfnetlink.Dial(ns.fd)
	if err != nil {
		t.Fatal(err)
	}
	d := newDriver(oldKernel{s}, testLog(t))
	t.Cleanup(func() { _ = d.Close() })
	mustApply(t, d, plan)
	mustHold(t, ns, plan)
	ns.nft("delete", "table", "inet", TableName)
	if drift, err := d.Observe(t.Context()); drift == 0 || err != nil {
		t.Errorf("the table is gone: %d differences, %v", drift, err)
	}
	mustApply(t, d, plan)
	mustHold(t, ns, plan)
}

// TestRestartOnKernelThatCannotOwn starts anew on a table that needs no change: nothing is sent, since
// the kernel before Linux 6.10 answers no transaction that holds nothing.
func TestRestartOnKernelThatCannotOwn(t *testing.T) {
	t.Parallel()
	ns, plan := newNamespace(t), simplePlan(t)
	mustApply(t, ns.driver(), plan)
	s, err := nfnetlink.Dial(ns.fd)
	if err != nil {
		t.Fatal(err)
	}
	d := newDriver(oldKernel{s}, testLog(t))
	t.Cleanup(func() { _ = d.Close() })
	mustApply(t, d, plan)
	if s := d.Stats(); s.Transactions != 0 {
		t.Errorf("%+v; want no transaction, since nothing differs", s)
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
			d, faulty := ns.watchedDriver()
			d.unowned = false
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
			if now := ns.tableNow(); now.flags != flagsOwned || now.owner != faulty.PortID() {
				t.Fatalf("call %d fails (before: %t): flags %#x", fail, before, now.flags)
			}
			failed = faulty.failed
		}
	}
}

// TestOthersMayBeBusy changes a table of others without pause while a large table of ours is read: what is ours
// cannot change by that, so it is read all the same.
func TestOthersMayBeBusy(t *testing.T) {
	t.Parallel()
	ns, plan := newNamespace(t), simplePlan(t)
	plan.LeakGuard = true
	plan.Exempt = nil
	for i := range uint32(20_000) {
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a020000+2*i)))
		plan.Exempt = append(plan.Exempt, netipx.IPRangeFrom(a, a))
	}
	d := ns.owner()
	mustApply(t, d, plan)
	needOwned(t, d)
	stop, busy := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				busy <- n
				return
			default:
			}
			if out, err := ns.tryNFT("add table ip other; add chain ip other c; delete table ip other"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	}()
	for range 5 {
		d.trusted = false
		if drift, err := d.Observe(t.Context()); err != nil || drift != 0 {
			t.Errorf("observed %d differences, %v", drift, err)
		}
		if _, err := d.Counters(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if n := <-busy; n < 5 {
		t.Errorf("others made %d changes only", n)
	}
}
