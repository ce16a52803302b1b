package nftables

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// readTries is how often a reading is begun anew because the ruleset, perhaps somebody else's table,
// changed meanwhile.
const readTries = 10

// generation asks for the number of the ruleset's generation.
func (c *conn) generation(ctx context.Context) (generation uint32, err error) {
	const doing = "asking for the ruleset's generation"
	err = c.Get(ctx, doing, c.request(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC), func(m nfnetlink.Message) (err error) {
		generation, err = parseGeneration(m)
		return err
	})
	return generation, nfnetlink.Unsupported("nf_tables", err, unix.EINVAL, unix.EOPNOTSUPP)
}

// readTable reads our table in full, with the generation in which it was all true. Where others can change the table,
// that is one in which nobody changed any while it was read; one that we own can only be as we left it.
func (c *conn) readTable(ctx context.Context) (*Table, uint32, error) {
	for range readTries {
		before, err := c.generation(ctx)
		if err != nil {
			return nil, 0, err
		}
		t, err := c.readTableOnce(ctx)
		if err == nil && t.ours {
			return t, before, nil
		}
		if err == nil {
			after, err := c.generation(ctx)
			if err != nil {
				return nil, 0, err
			}
			if before == after {
				return t, after, nil
			}
		} else if !errors.Is(err, nfnetlink.ErrInterrupted) && !isAbsent(err) {
			return nil, 0, err
		}
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
	}
	return nil, 0, fmt.Errorf("reading table %s: %w, in each of %d tries", c.table, nfnetlink.ErrInterrupted, readTries)
}

// readTableOnce reads what may be of several generations.
func (c *conn) readTableOnce(ctx context.Context) (*Table, error) {
	t := &Table{}
	request := nfnetlink.AppendText(c.request(unix.NFT_MSG_GETTABLE, 0, c.family), unix.NFTA_TABLE_NAME, c.table)
	err := c.Get(ctx, "reading table "+c.table, request, func(m nfnetlink.Message) (err error) {
		t.present = true
		t.flags, t.owner, err = parseTable(m)
		return err
	})
	if isAbsent(err) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	t.ours = t.flags&flagOwner != 0 && t.owner == c.Socket.PortID()
	for _, read := range []func(context.Context, *Table) error{c.readChains, c.readRules, c.readSets, c.readForeign} {
		err := read(ctx, t)
		for try := 1; t.ours && errors.Is(err, nfnetlink.ErrInterrupted) && try < readTries && ctx.Err() == nil; try++ {
			err = read(ctx, t) // what is ours is as it was
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// calm makes nothing of an interruption by others of a dump of what they cannot change. It is for dumps of one
// table's rules and of one set's elements: the kernel counts only these to find where it goes on.
func calm(ours bool, err error) error {
	if ours && errors.Is(err, nfnetlink.ErrInterrupted) {
		return nil
	}
	return err
}

// dumpTable dumps objects of one kind in our table. All kinds have the table's name as attribute 1;
// kernels that do not filter by it for some kind send the objects of every table.
func (c *conn) dumpTable(ctx context.Context, kind uint16, what string, handle func(nfnetlink.Message) error) error {
	request := nfnetlink.AppendText(c.request(kind, unix.NLM_F_DUMP, c.family), unix.NFTA_TABLE_NAME, c.table)
	return c.Dump(ctx, "reading the "+what+" of table "+c.table, request, handle)
}

func (c *conn) readChains(ctx context.Context, t *Table) error {
	t.Chains = nil
	return c.dumpTable(ctx, unix.NFT_MSG_GETCHAIN, "chains", func(m nfnetlink.Message) error {
		read, in, err := parseChain(m)
		if err == nil && in == c.table && m.Family() == c.family {
			t.Chains = append(t.Chains, read)
		}
		return err
	})
}

// hasChain says whether the kernel has a chain of our table.
func (c *conn) hasChain(ctx context.Context, name string) (bool, error) {
	request := nfnetlink.AppendText(c.request(unix.NFT_MSG_GETCHAIN, 0, c.family), unix.NFTA_CHAIN_TABLE, c.table)
	request = nfnetlink.AppendText(request, unix.NFTA_CHAIN_NAME, name)
	err := c.Get(ctx, "asking for chain "+name, request, func(nfnetlink.Message) error { return nil })
	if isAbsent(err) {
		return false, nil
	}
	return err == nil, err
}

func (c *conn) readRules(ctx context.Context, t *Table) error {
	return calm(t.ours, c.dumpTable(ctx, unix.NFT_MSG_GETRULE, "rules", func(m nfnetlink.Message) error {
		r, in, name, err := parseRule(m)
		if err != nil || in != c.table || m.Family() != c.family {
			return err
		}
		if ch := t.Chain(name); ch != nil {
			ch.Rules = append(ch.Rules, r)
			return nil
		}
		return nfnetlink.ErrInterrupted // the chain is newer than the list of chains
	}))
}

func (c *conn) readSets(ctx context.Context, t *Table) error {
	t.Sets = nil
	err := c.dumpTable(ctx, unix.NFT_MSG_GETSET, "sets", func(m nfnetlink.Message) error {
		s, in, err := parseSet(m)
		if err == nil && in == c.table && m.Family() == c.family {
			t.Sets = append(t.Sets, s)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range t.Sets {
		if t.Sets[i].strange {
			continue // none of ours: it goes, whatever it holds
		}
		if err := c.readElements(ctx, &t.Sets[i], t.ours); err != nil {
			return err
		}
	}
	return nil
}

// readElements reads the elements of a set. Ours says that nobody else can change it meanwhile.
func (c *conn) readElements(ctx context.Context, s *Set, ours bool) error {
	request := nfnetlink.AppendText(c.request(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP, c.family), unix.NFTA_SET_ELEM_LIST_TABLE, c.table)
	request = nfnetlink.AppendText(request, unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	r := newReading(s)
	err := calm(ours, c.Dump(ctx, "reading set "+s.Name, request, func(m nfnetlink.Message) error {
		return parseElements(m, r.add)
	}))
	if err != nil {
		return err
	}
	r.finish()
	return nil
}

// readForeign counts the things in our table of kinds that we never make.
func (c *conn) readForeign(ctx context.Context, t *Table) error {
	t.foreign = 0
	count := func(m nfnetlink.Message) error {
		for a, err := range m.Attributes() {
			if err != nil {
				return err
			}
			if a.Kind == unix.NFTA_OBJ_TABLE && a.Text() == c.table && m.Family() == c.family {
				t.foreign++
			}
		}
		return nil
	}
	if err := c.dumpTable(ctx, unix.NFT_MSG_GETOBJ, "stateful objects", count); err != nil {
		return err
	}
	return c.dumpTable(ctx, unix.NFT_MSG_GETFLOWTABLE, "flow tables", count)
}
