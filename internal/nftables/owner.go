package nftables

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// The flags of our table (linux/netfilter/nf_tables.h). Kernels have the last two from Linux 6.9 on: an owned
// table can be changed only through the socket that made it or took it over, and a "flush ruleset" of others
// passes it by. When that socket is closed the table persists, as an orphan, and works on; the next agent
// takes it over.
const (
	flagDormant = 1 << 0 // NFT_TABLE_F_DORMANT: its chains are not called
	flagOwner   = 1 << 1 // NFT_TABLE_F_OWNER
	flagPersist = 1 << 2 // NFT_TABLE_F_PERSIST

	flagsOwned  = flagOwner | flagPersist
	flagsOrphan = flagPersist
)

// attrTableOwner is NFTA_TABLE_OWNER: the port id of the socket that owns the table.
const attrTableOwner = 7

// OwnedError says that our table belongs to the netlink socket of another process, which alone can
// change it. Where that process ends, the table can be taken over.
type OwnedError struct {
	Table  string
	PortID uint32 // of the socket; mostly the process id, the first socket of a process has that
}

func (e *OwnedError) Error() string {
	return fmt.Sprintf("table %s is owned by another process (netlink port id %d): another agent runs in this network namespace; stop it first", e.Table, e.PortID)
}

// ownedByOther says whether a table that was read is one that we may not change.
func (e *Engine) ownedByOther(t *Table) error {
	if t.flags&flagOwner == 0 || t.owner == e.conn.Socket.PortID() {
		return nil
	}
	return &OwnedError{Table: e.conn.table, PortID: t.owner}
}

// prepare checks what is declared, and makes a table of it, owned where the kernel can do that. The declared one stays
// as it is, but for the order of its elements.
func (e *Engine) prepare(declared *Table) (*Table, error) {
	t := declared.clone()
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("laying out table %s: %w", e.conn.table, err)
	}
	if !e.unowned {
		t.flags = flagsOwned
	}
	return t, nil
}

// takeOver becomes the owner of a table that an agent that ended has left, and changes nothing else, where the
// rest of what is wanted has chains with hooks come or go: the kernel refuses that in a transaction in which
// the flags of a table change (nf_tables_addchain of net/netfilter/nf_tables_api.c). To delete the table and
// make it anew would be one transaction, but a packet that is between the hooks at that moment would see
// neither of them.
func (e *Engine) takeOver(ctx context.Context, wanted *Table) error {
	if c := diff(e.held, wanted); !c.adopt || !c.hooks(e.held) {
		return nil
	}
	owned := *e.held
	owned.flags = wanted.flags
	owned.Sets = slices.Clone(owned.Sets)
	if err := e.commit(ctx, diff(e.held, &owned), &owned); err != nil {
		return fmt.Errorf("taking over the table: %w", err)
	}
	return nil
}

// cannotOwn says whether a transaction failed since the kernel does not know the flags, as those before
// Linux 6.9. From then on the engine does without, and others can change the table until that is noticed.
func (e *Engine) cannotOwn(c *change, err error) bool {
	var r *nfnetlink.Refusal
	if e.unowned || !c.create && !c.rebuild || c.flags == 0 || !errors.As(err, &r) || r.Doing != creatingTable+e.conn.table {
		return false
	}
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// leaveOpen makes the engine do without owning the table.
func (e *Engine) leaveOpen() {
	if !e.unowned {
		e.unowned = true
		close(e.open)
	}
}
