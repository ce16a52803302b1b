package nftables

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// needOwned skips where the kernel cannot own tables.
func needOwned(t *testing.T, d *Engine) {
	t.Helper()
	if d.unowned {
		t.Skip("needs kernel 6.9: tables with the flags owner and persist")
	}
}

func TestOthersCannotChangeAnOwnedTable(t *testing.T) {
	t.Parallel()
	ns, plan := newHost(t), sample()
	d := ns.owner()
	mustApply(t, d, plan)
	needOwned(t, d)
	for _, args := range []string{
		"delete table inet sample",
		"flush table inet sample",
		"delete chain inet sample base",
		"flush set inet sample source4",
		"add element inet sample exempt4 { 192.0.2.0/24 }",
		"add rule inet sample decide drop",
		"add set inet sample x { type ipv4_addr; }",
	} {
		if out, err := ns.tryNFT(args); err == nil || !strings.Contains(out, "Operation not permitted") {
			t.Errorf("nft %s: %v: %s; want it refused", args, err, out)
		}
	}
	ns.nft("flush ruleset") // of which an owned table is no part
	if drift, err := d.Observe(t.Context()); drift != 0 || err != nil {
		t.Errorf("after all that: %d differences, %v", drift, err)
	}
	mustApply(t, d, sample("10.1.0.0/24 a"))
	if now := ns.read(ours); now.flags != flagsOwned || now.owner != d.conn.Socket.PortID() {
		t.Errorf("flags %#x, owner %d; want %#x and %d", now.flags, now.owner, flagsOwned, d.conn.Socket.PortID())
	}
}

func TestSecondOwnerIsRefusedAndThenTakesOver(t *testing.T) {
	t.Parallel()
	ns, plan := newHost(t), sample()
	first, second := ns.owner(), ns.owner()
	mustApply(t, first, plan)
	needOwned(t, first)
	before := ns.read(ours)
	for what, err := range map[string]error{"applying": second.Apply(t.Context(), plan), "cleaning up": second.Cleanup(t.Context())} {
		var owned *OwnedError
		if !errors.As(err, &owned) || owned.PortID != first.conn.Socket.PortID() {
			t.Errorf("%s while another owns the table: %v", what, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if now := ns.read(ours); now.flags != flagsOrphan || now.size() != before.size() || len(now.Chains) != len(before.Chains) {
		t.Errorf("after its owner ended, the table has flags %#x, %d ranges, %d chains", now.flags, now.size(), len(now.Chains))
	}
	mustApply(t, second, plan)
	if s := second.Stats(); s.Transactions != 1 || s.LastMessages != 1 || s.LastElements != 0 {
		t.Errorf("taking an equal table over: %+v; want one message", s)
	}
	if now := ns.read(ours); now.flags != flagsOwned {
		t.Errorf("taken over, the table has flags %#x", now.flags)
	}
	if err := second.Cleanup(t.Context()); err != nil || ns.read(ours).present {
		t.Errorf("cleaning up our own table: %v", err)
	}
}

func TestOrphanCanBeCleanedUp(t *testing.T) {
	t.Parallel()
	ns := newHost(t)
	first := ns.owner()
	mustApply(t, first, sample())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ns.owner().Cleanup(t.Context()); err != nil || ns.read(ours).present {
		t.Errorf("cleaning up what an ended agent left: %v", err)
	}
}

func TestTableWithoutOwnerIsReplacedByAnOwnedOne(t *testing.T) {
	t.Parallel()
	ns, plan := newHost(t), sample()
	mustApply(t, ns.engine(ours), plan)
	d := ns.owner()
	mustApply(t, d, plan)
	needOwned(t, d)
	if s := d.Stats(); s.Transactions != 1 {
		t.Errorf("replaced in %d transactions, want 1", s.Transactions)
	}
	if now := ns.read(ours); now.flags != flagsOwned {
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
	ns, plan := newHost(t), sample()
	d := ns.open(ours, Options{Wrap: func(s nfnetlink.Socket) nfnetlink.Socket { return oldKernel{s} }})
	mustApply(t, d, plan)
	mustHold(t, ns, ours, plan)
	ns.nft("delete table inet sample")
	if drift, err := d.Observe(t.Context()); drift == 0 || err != nil {
		t.Errorf("the table is gone: %d differences, %v", drift, err)
	}
	mustApply(t, d, plan)
	mustHold(t, ns, ours, plan)
}

// TestRestartOnKernelThatCannotOwn starts anew on a table that needs no change: nothing is sent, since
// the kernel before Linux 6.10 answers no transaction that holds nothing.
func TestRestartOnKernelThatCannotOwn(t *testing.T) {
	t.Parallel()
	ns, plan := newHost(t), sample()
	mustApply(t, ns.engine(ours), plan)
	d := ns.open(ours, Options{Wrap: func(s nfnetlink.Socket) nfnetlink.Socket { return oldKernel{s} }})
	mustApply(t, d, plan)
	if s := d.Stats(); s.Transactions != 0 {
		t.Errorf("%+v; want no transaction, since nothing differs", s)
	}
	mustHold(t, ns, ours, plan)
}

// TestOthersMayBeBusy changes a table of others without pause while a large table of ours is read: what is ours
// cannot change by that, so it is read all the same.
func TestOthersMayBeBusy(t *testing.T) {
	t.Parallel()
	ns, plan := newHost(t), sample()
	for i := range uint32(20_000) {
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0b020000+2*i)))
		plan.Set("exempt4").AddRange(a, a, "")
	}
	d := ns.owner()
	mustApply(t, d, plan)
	needOwned(t, d)
	var changes atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if out, err := ns.tryNFT("add table ip other; add chain ip other c; delete table ip other"); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			changes.Add(1)
		}
	}()
	for i := 0; i < 5 || changes.Load() < 5; i++ {
		d.trusted = false
		if drift, err := d.Observe(t.Context()); err != nil || drift != 0 {
			t.Errorf("observed %d differences, %v", drift, err)
		}
		if _, err := d.Counts(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	<-done
}
