package nftables

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// The families of tables.
const (
	FamilyInet   = unix.NFPROTO_INET
	FamilyNetdev = unix.NFPROTO_NETDEV // of chains that see what comes by one device
)

// Options say where an engine works. Log is required.
type Options struct {
	Log *slog.Logger
	// Family is that of the table: FamilyInet, which 0 is too, or FamilyNetdev.
	Family uint8
	// NetNS is a file descriptor of the network namespace to work in; 0 is that of the calling thread.
	NetNS int
	// Unowned makes the engine leave its table open to others, as it must on kernels that cannot own tables.
	// It is for tests and measurements of what happens then.
	Unowned bool
	// Wrap, if set, puts something between the engine and the kernel. It is for tests that make calls fail.
	Wrap func(nfnetlink.Socket) nfnetlink.Socket
}

// Stats say what an engine has done and what it holds.
type Stats struct {
	Transactions uint64 // that the kernel carried out
	FullReads    uint64 // of the table
	LastElements int    // set elements added and deleted in the last transaction; most ranges are two
	LastMessages int    // messages of the last transaction, without those that begin and end it
	Elements     int    // elements of the sets, as last known; a range is one
}

// Engine makes the kernel hold a table as declared, and reads back what it holds. Its methods may be called from
// several goroutines; they wait for each other.
type Engine struct {
	mu   sync.Mutex
	log  *slog.Logger
	conn *conn

	// held is what the kernel holds as last known; nil before it was first read. Unless trusted, the
	// kernel may hold something else by now because of us.
	held    *Table
	trusted bool
	// generation is that in which held was true; 0 if others changed the ruleset around our change, so
	// that it is not known.
	generation uint32
	// applied is the table last applied; nil before the first. Settled says that held is equal to it.
	applied *Table
	settled bool

	// unowned says that the kernel does not know how to own a table; open is closed then.
	unowned bool
	open    chan struct{}
	netns   int
	carried map[string]uint64 // by label: what was counted by elements that are gone
	tallies map[string]tally  // by chain: what its rules have counted
	stats   Stats

	mended bool // see Mended

	remembered int // twice the labels that forget left in carried

	looked bool   // at the kernel
	found  *Table // what stood then; nil if nothing did, and once it was given
}

// New opens an engine for the table with a name. It changes nothing. The error is an
// *nfnetlink.UnsupportedError if the kernel has no netfilter. Close it after use; what it programmed stays.
func New(table string, o Options) (*Engine, error) {
	s, err := nfnetlink.Dial(o.NetNS)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket for nf_tables: %w", err)
	}
	socket := nfnetlink.Socket(s)
	if o.Wrap != nil {
		socket = o.Wrap(socket)
	}
	e := newEngine(table, cmp.Or(o.Family, FamilyInet), socket, o.Log)
	e.netns = o.NetNS
	if o.Unowned {
		e.leaveOpen()
	}
	return e, nil
}

func newEngine(table string, family uint8, s nfnetlink.Socket, log *slog.Logger) *Engine {
	return &Engine{log: log, conn: newConn(s, table, family), carried: map[string]uint64{}, tallies: map[string]tally{}, open: make(chan struct{})}
}

// Close closes the engine. The kernel keeps what it holds.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.conn.Socket.Close()
}

// Settled says whether the kernel holds the table last applied, as far as is known.
func (e *Engine) Settled() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.settled
}

// Part is a part of a table that can be brought to the kernel without the rest.
type Part struct {
	Name string // for errors
	// Alone makes of a table that is wanted one that has this part of it, and the rest as it is held. It may
	// change the table that it is given, and leaves what is held as it is.
	Alone func(wanted, held *Table)
}

// Apply makes the kernel's table what is wanted, in one transaction of differences. Applied again, an equal
// table costs no transaction. The first time, and after an error, the table is read back before and after;
// otherwise the kernel's acknowledgements are the confirmation. The table must not be changed afterwards.
//
// With an error the kernel holds either what it held before or what is wanted, and the next Apply finds out which.
// Where the kernel refuses something and there are parts, each is then tried without the rest, so that a fault in one
// does not hold the others back. The error is an *nfnetlink.UnsupportedError if the kernel lacks a feature, an
// *OwnedError if another process owns the table, wraps unix.EPERM if the process lacks CAP_NET_ADMIN, and names the
// object at fault if the kernel refuses one.
func (e *Engine) Apply(ctx context.Context, declared *Table, parts ...Part) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	wanted, err := e.prepare(declared)
	if err != nil {
		return err
	}
	e.follow(wanted)
	for range 2 {
		if err = ctx.Err(); err != nil {
			break
		}
		if err = e.converge(ctx, wanted); err == nil {
			e.applied, e.settled = wanted, true
			return nil
		}
		e.trusted, e.settled = false, false
		if hopeless(err) {
			break
		}
		e.log.Warn("nf_tables transaction failed; the kernel is read back", "table", e.conn.table, "err", err)
	}
	if len(parts) > 0 && isRefusal(err) {
		if err = e.applyParts(ctx, declared, parts, err); err == nil {
			e.applied, e.settled = e.held, true
			return nil
		}
	}
	return fmt.Errorf("programming table %s: %w", e.conn.table, err)
}

// applyParts brings a table that was refused as a whole to the kernel part by part. A part that is refused by itself
// stays as it was. It returns why, or whole if none could be brought there.
func (e *Engine) applyParts(ctx context.Context, declared *Table, parts []Part, whole error) error {
	var failed []error
	for _, p := range parts {
		if err := e.applyPart(ctx, declared, p); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.Name, err))
		}
	}
	if len(failed) == len(parts) {
		return whole
	}
	return errors.Join(failed...)
}

func (e *Engine) applyPart(ctx context.Context, declared *Table, p Part) error {
	if err := e.read(ctx); err != nil {
		return err
	}
	alone := declared.clone()
	p.Alone(alone, e.held)
	wanted, err := e.prepare(alone)
	if err != nil {
		return err
	}
	if err := e.converge(ctx, wanted); err != nil {
		e.trusted = false
		return err
	}
	return nil
}

// converge makes the kernel hold what is wanted, from what it is known to hold or else from what is read.
func (e *Engine) converge(ctx context.Context, wanted *Table) error {
	read := !e.trusted
	if read {
		before := e.held
		if err := e.read(ctx); err != nil {
			return err
		}
		e.mended = e.mended || undone(before, e.held, wanted)
		if err := e.ownedByOther(e.held); err != nil {
			return err
		}
		if err := e.takeOver(ctx, wanted); err != nil {
			return err
		}
	}
	c := diff(e.held, wanted)
	if c.empty() {
		e.settle(wanted, c, nil)
		return nil
	}
	err := e.commit(ctx, c, wanted)
	if e.cannotOwn(c, err) {
		e.leaveOpen()
		wanted.flags = 0
		if c = diff(e.held, wanted); c.empty() {
			e.settle(wanted, c, nil)
			return nil
		}
		err = e.commit(ctx, c, wanted)
	}
	if err != nil {
		return err
	}
	if !read {
		return nil
	}
	if err := e.read(ctx); err != nil {
		return fmt.Errorf("confirming a transaction: %w", err)
	}
	if c := diff(e.held, wanted); !c.empty() {
		return fmt.Errorf("the kernel carried the transaction out, but %d things read back differ", c.drift)
	}
	return nil
}

// undone says whether what was read is neither what stood before nor what a transaction of ours whose outcome is
// not known may have made of it, so that somebody else has changed it.
func undone(before, read, wanted *Table) bool {
	return before != nil && before.present && !diff(read, before).empty() && !diff(read, wanted).empty()
}

// Found is what stood when the engine first looked, as an earlier agent had left it. It is given once, and is
// nil if nothing stood.
func (e *Engine) Found() *Table {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.found
	e.found = nil
	return t
}

// Mended says whether Apply has, since this was asked last, found that somebody else had undone what stood, and
// repaired it, so that no Observe will tell.
func (e *Engine) Mended() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.mended && e.settled
	e.mended = e.mended && !m
	return m
}

// commit carries out a change that leads from held to wanted.
func (e *Engine) commit(ctx context.Context, c *change, wanted *Table) error {
	if c.removesMany() {
		// Too many to be echoed, one by one, with their last counts.
		if err := e.readCounts(ctx); err != nil {
			return err
		}
	}
	if e.renewsTally(c) {
		if err := e.readTallies(ctx); err != nil {
			return err
		}
	}
	b := e.conn.newBatch()
	b.write(c)
	out, err := e.conn.transact(ctx, b)
	if err != nil {
		return err
	}
	e.stats.Transactions++
	e.stats.LastElements, e.stats.LastMessages = b.elements, b.last()
	e.log.Debug("nf_tables changed", "table", e.conn.table, "differences", c.drift, "elements", b.elements, "messages", b.last())
	e.settle(wanted, c, out.deleted)
	e.renewTallies(c)
	if e.generation == 0 || out.generation != e.generation+1 {
		out.generation = 0 // another transaction came in between
	}
	e.generation = out.generation
	return nil
}

// read reads our table in full.
func (e *Engine) read(ctx context.Context) error {
	e.stats.FullReads++
	t, generation, err := e.conn.readTable(ctx)
	if err != nil {
		e.trusted = false
		return err
	}
	if !e.looked {
		e.looked = true
		if t.present {
			e.found = t
		}
	}
	e.takeCounts(t)
	e.held, e.generation, e.trusted = t, generation, true
	return nil
}

// Observe compares our table with the table last applied, and returns how many things differ: the table,
// chains, rules, sets and ranges. It costs one question if nobody changed any table since it was last
// compared. If something differs, the next Apply reads the table before and after its repair. Before the first
// Apply nothing differs.
func (e *Engine) Observe(ctx context.Context) (drift int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.applied == nil {
		return 0, nil
	}
	generation, err := e.conn.generation(ctx)
	if err != nil {
		e.trusted, e.settled = false, false // the next Apply looks for itself
		return 0, err
	}
	if e.settled && e.trusted && e.generation == generation {
		return 0, nil
	}
	if err := e.read(ctx); err != nil {
		e.settled = false
		return 0, err
	}
	drift = diff(e.held, e.applied).drift
	e.settled = drift == 0
	if drift > 0 {
		e.trusted = false // who changed it may go on: the repair reads the table before and after
	} else {
		ours := e.held.ours
		e.settle(e.applied, &change{}, nil) // one copy of an equal table is enough
		e.held.ours = ours
	}
	return drift, nil
}

// Recheck looks which of some chains the kernel has deleted by itself, as those before Linux 6.16 do with the chain of a device that
// goes, so that the next Apply does not delete them. It costs one question for each.
func (e *Engine) Recheck(ctx context.Context, chains []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.held == nil || !e.trusted {
		return nil // the next Apply reads the table
	}
	var gone []string
	for _, name := range chains {
		there, err := e.conn.hasChain(ctx, name)
		if err != nil {
			return err
		}
		if !there {
			gone = append(gone, name)
		}
	}
	if len(gone) > 0 {
		held := *e.held // which may be the table last applied
		held.Chains = slices.DeleteFunc(slices.Clone(held.Chains), func(c Chain) bool { return slices.Contains(gone, c.Name) })
		e.held, e.settled = &held, false
	}
	return nil
}

// HasChain says whether the kernel's table has a chain.
func (e *Engine) HasChain(ctx context.Context, name string) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.conn.hasChain(ctx, name)
}

// Cleanup removes our table with all that is in it. That there is none is not an error.
func (e *Engine) Cleanup(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trusted, e.settled, e.applied = false, false, nil
	if err := ctx.Err(); err != nil {
		return err
	}
	b := e.conn.newBatch()
	b.deleteTable()
	_, err := e.conn.transact(ctx, b)
	if isAbsent(err) {
		return nil
	}
	if errors.Is(err, unix.EPERM) {
		if t, _, unread := e.conn.readTable(ctx); unread == nil {
			err = cmp.Or(e.ownedByOther(t), err)
		}
	}
	if err != nil {
		return fmt.Errorf("removing table %s: %w", e.conn.table, err)
	}
	e.stats.Transactions++
	e.stats.LastElements, e.stats.LastMessages = 0, b.last()
	return nil
}

// Stats says what the engine has done and what it holds.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	if e.held != nil {
		s.Elements = e.held.size()
	}
	return s
}
