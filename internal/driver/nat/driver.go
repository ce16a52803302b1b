package nat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Options say where a driver works. Log is required.
type Options struct {
	Log *slog.Logger
	// NetNS is a file descriptor of the network namespace to work in; 0 is that of the calling thread.
	NetNS int
	// Unowned makes the driver leave the table open to others, as it must on kernels that cannot own tables.
	// It is for tests and measurements of what happens then.
	Unowned bool
	// Wrap, if set, puts something between the driver and the kernel. It is for tests that make calls fail.
	Wrap func(nfnetlink.Socket) nfnetlink.Socket
}

// Stats say what a driver has done and what it holds.
type Stats struct {
	Transactions uint64 // that the kernel carried out
	FullReads    uint64 // of the table
	LastElements int    // set elements added and deleted in the last transaction; most ranges are two
	LastMessages int    // messages of the last transaction, without those that begin and end it
	Elements     int    // ranges in the sets, as last known
}

// Driver makes the kernel hold plans, and reads back what it holds. Its methods may be called from
// several goroutines; they wait for each other.
type Driver struct {
	mu   sync.Mutex
	log  *slog.Logger
	conn *conn

	// held is what the kernel holds as last known; nil before it was first read. Unless trusted, the
	// kernel may hold something else by now because of us.
	held    *table
	trusted bool
	// generation is that in which held was true; 0 if others changed the ruleset around our change, so
	// that it is not known.
	generation uint32
	// applied is the plan last applied; nil before the first. Settled says that held is what it wants.
	applied *compile.NAT
	settled bool

	// unowned says that the kernel does not know how to own a table; open is closed then.
	unowned bool
	open    chan struct{}
	netns   int
	carried map[string]uint64 // by pool: connections counted by elements that are gone
	dropped map[string]tally  // by chain: packets dropped by the leak guard
	stats   Stats

	mended bool // see Mended

	remembered int // twice the names that forget left in carried

	looked bool    // at the kernel
	found  *Ranges // what stood then; nil if nothing did, and once it was given
}

// New opens a driver. It changes nothing. The error is an *nfnetlink.UnsupportedError if the kernel has no
// netfilter. Close it after use; what it programmed stays.
func New(o Options) (*Driver, error) {
	s, err := nfnetlink.Dial(o.NetNS)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for nf_tables: %w", err)
	}
	socket := nfnetlink.Socket(s)
	if o.Wrap != nil {
		socket = o.Wrap(socket)
	}
	d := newDriver(socket, o.Log)
	d.netns = o.NetNS
	if o.Unowned {
		d.leaveOpen()
	}
	return d, nil
}

func newDriver(s nfnetlink.Socket, log *slog.Logger) *Driver {
	return &Driver{log: log, conn: newConn(s), carried: map[string]uint64{}, dropped: map[string]tally{}, open: make(chan struct{})}
}

// Close closes the driver. The kernel keeps what it holds.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn.Socket.Close()
}

// Apply makes our table what the plan wants, in one transaction of differences. Applied again, an equal
// plan costs nothing. The first time, and after an error, the table is read back before and after;
// otherwise the kernel's acknowledgements are the confirmation. The plan must not be changed afterwards.
//
// With an error the kernel holds either what it held before or what the plan wants, for each family by itself,
// and the next Apply finds out which. A fault in one family does not hold the other back. The error is an *nfnetlink.UnsupportedError if the kernel lacks a feature, an *OwnedError if
// another process owns the table, wraps unix.EPERM if the process lacks CAP_NET_ADMIN, and names the object
// at fault if the kernel refuses one.
func (d *Driver) Apply(ctx context.Context, nat compile.NAT) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled && equalNAT(d.applied, &nat) {
		return nil
	}
	wanted, err := d.layout(layout(nat))
	if err != nil {
		return err
	}
	for range 2 {
		if err = ctx.Err(); err != nil {
			break
		}
		if err = d.converge(ctx, wanted); err == nil {
			d.applied, d.settled = &nat, true
			return nil
		}
		d.trusted, d.settled = false, false
		if hopeless(err) {
			break
		}
		d.log.Warn("nf_tables transaction failed; the kernel is read back", "table", TableName, "err", err)
	}
	if isRefusal(err) {
		if err = d.applyFamilies(ctx, nat, err); err == nil {
			d.applied, d.settled = &nat, true
			return nil
		}
	}
	return fmt.Errorf("programming table %s: %w", TableName, err)
}

// converge makes the kernel hold what is wanted, from what it is known to hold or else from what is read.
func (d *Driver) converge(ctx context.Context, wanted *table) error {
	read := !d.trusted
	if read {
		before := d.held
		if err := d.read(ctx); err != nil {
			return err
		}
		d.mended = d.mended || undone(before, d.held, wanted)
		if err := d.ownedByOther(d.held); err != nil {
			return err
		}
		if err := d.takeOver(ctx, wanted); err != nil {
			return err
		}
	}
	c := diff(d.held, wanted)
	if c.empty() {
		d.settle(wanted, c, nil)
		return nil
	}
	err := d.commit(ctx, c, wanted)
	if d.cannotOwn(c, err) {
		d.leaveOpen()
		wanted.flags = 0
		if c = diff(d.held, wanted); c.empty() {
			d.settle(wanted, c, nil)
			return nil
		}
		err = d.commit(ctx, c, wanted)
	}
	if err != nil {
		return err
	}
	if !read {
		return nil
	}
	if err := d.read(ctx); err != nil {
		return fmt.Errorf("confirming a transaction: %w", err)
	}
	if c := diff(d.held, wanted); !c.empty() {
		return fmt.Errorf("the kernel carried the transaction out, but %d things read back differ", c.drift)
	}
	return nil
}

// undone says whether what was read is neither what stood before nor what a transaction of ours whose outcome is
// not known may have made of it, so that somebody else has changed it.
func undone(before, read, wanted *table) bool {
	return before != nil && before.present && !diff(read, before).empty() && !diff(read, wanted).empty()
}

// Mended says whether Apply has, since this was asked last, found that somebody else had undone what stood, and
// mended it, so that no Observe will tell.
func (d *Driver) Mended() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.mended && d.settled
	d.mended = d.mended && !m
	return m
}

// commit carries out a change that leads from held to wanted.
func (d *Driver) commit(ctx context.Context, c *change, wanted *table) error {
	if c.removesMany() {
		// Too many to be echoed, one by one, with their last counts.
		if err := d.readCounts(ctx); err != nil {
			return err
		}
	}
	if c.emptiesGuard() {
		if err := d.readDropped(ctx); err != nil {
			return err
		}
	}
	b := newBatch(d.conn.Seq + 1)
	b.write(c)
	out, err := d.conn.transact(ctx, b)
	if err != nil {
		return err
	}
	d.stats.Transactions++
	d.stats.LastElements, d.stats.LastMessages = b.elements, b.last()
	d.log.Debug("nf_tables changed", "table", TableName, "differences", c.drift, "elements", b.elements, "messages", b.last())
	d.settle(wanted, c, out.deleted)
	d.renewTallies(c)
	if d.generation == 0 || out.generation != d.generation+1 {
		out.generation = 0 // another transaction came in between
	}
	d.generation = out.generation
	return nil
}

// read reads our table in full.
func (d *Driver) read(ctx context.Context) error {
	d.stats.FullReads++
	t, generation, err := d.conn.readTable(ctx)
	if err != nil {
		d.trusted = false
		return err
	}
	d.find(t)
	d.takeCounts(t)
	d.held, d.generation, d.trusted = t, generation, true
	return nil
}

// Observe compares our table with the plan last applied, and returns how many things differ: the table,
// chains, rules, sets and ranges. It costs one question if nobody changed any table since it was last
// compared. If something differs, the next Apply reads the table before and after its repair. Before the first
// Apply nothing differs.
func (d *Driver) Observe(ctx context.Context) (drift int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.applied == nil {
		return 0, nil
	}
	generation, err := d.conn.generation(ctx)
	if err != nil {
		d.trusted, d.settled = false, false // the next Apply looks for itself
		return 0, err
	}
	if d.settled && d.trusted && d.generation == generation {
		return 0, nil
	}
	if err := d.read(ctx); err != nil {
		d.settled = false
		return 0, err
	}
	wanted, err := d.layout(layout(*d.applied))
	if err != nil {
		return 0, err
	}
	drift = diff(d.held, wanted).drift
	d.settled = drift == 0
	if drift > 0 {
		d.trusted = false // who changed it may go on: the repair reads the table before and after
	}
	return drift, nil
}

// Cleanup removes our table with all that is in it. That there is none is not an error.
func (d *Driver) Cleanup(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trusted, d.settled, d.applied = false, false, nil
	if err := ctx.Err(); err != nil {
		return err
	}
	b := newBatch(d.conn.Seq + 1)
	b.deleteTable()
	_, err := d.conn.transact(ctx, b)
	if isAbsent(err) {
		return nil
	}
	if errors.Is(err, unix.EPERM) {
		if t, _, unread := d.conn.readTable(ctx); unread == nil {
			err = cmp.Or(d.ownedByOther(t), err)
		}
	}
	if err != nil {
		return fmt.Errorf("removing table %s: %w", TableName, err)
	}
	d.stats.Transactions++
	d.stats.LastElements, d.stats.LastMessages = 0, b.last()
	return nil
}

// Stats says what the driver has done and what it holds.
func (d *Driver) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	if d.held != nil {
		s.Elements = d.held.elements()
	}
	return s
}

// equalNAT compares two plans.
func equalNAT(a, b *compile.NAT) bool {
	return a.To4 == b.To4 && a.To6 == b.To6 && a.Ports == b.Ports && a.UDPPorts == b.UDPPorts && a.Allocation == b.Allocation &&
		a.LeakGuard == b.LeakGuard && a.ExistingFlows == b.ExistingFlows &&
		slices.Equal(a.OutInterfaces, b.OutInterfaces) && slices.Equal(a.Exempt, b.Exempt) && slices.Equal(a.Sources, b.Sources)
}
