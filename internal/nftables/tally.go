package nftables

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Tallies reads what the rules of the chains with a tally have counted, by chain: packets. The numbers never decrease
// while the engine lives, and include what the kernel had counted before; on error they are those last read.
func (e *Engine) Tallies(ctx context.Context) (map[string]uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.readTallies(ctx)
	out := make(map[string]uint64, len(e.tallies))
	for name, t := range e.tallies {
		out[name] = t.total()
	}
	return out, err
}

// tally follows a counter that begins anew whenever its rule does.
type tally struct{ before, now uint64 }

func (t tally) total() uint64 { return t.before + t.now }

func (t *tally) read(count uint64) {
	if count < t.now {
		t.renew()
	}
	t.now = count
}

// renew says that the counter has begun anew.
func (t *tally) renew() { t.before, t.now = t.total(), 0 }

// readTallies brings the tallies up to date. A chain that is not there has counted nothing more.
func (e *Engine) readTallies(ctx context.Context) error {
	for chain := range e.tallied() {
		count, err := e.conn.chainCount(ctx, chain.Name)
		if err != nil {
			return fmt.Errorf("reading the counters of chain %s: %w", chain.Name, err)
		}
		t := e.tallies[chain.Name]
		t.read(count)
		e.tallies[chain.Name] = t
	}
	return nil
}

// follow takes note of the chains whose counters are to be followed, also where an earlier agent has left them.
func (e *Engine) follow(wanted *Table) {
	for i := range wanted.Chains {
		if c := &wanted.Chains[i]; c.Tally {
			if _, followed := e.tallies[c.Name]; !followed {
				e.tallies[c.Name] = tally{}
			}
		}
	}
}

// tallied iterates over the chains that are held and whose counters are followed.
func (e *Engine) tallied() iter.Seq[*Chain] {
	return func(yield func(*Chain) bool) {
		if e.held == nil {
			return
		}
		for i := range e.held.Chains {
			c := &e.held.Chains[i]
			if _, followed := e.tallies[c.Name]; followed && !yield(c) {
				return
			}
		}
	}
}

// renewsTally says whether a change makes rules again that count for a tally.
func (e *Engine) renewsTally(c *change) bool {
	for chain := range e.tallied() {
		if c.renews(chain.Name) {
			return true
		}
	}
	return false
}

// renews says whether a change makes the rules of a chain anew, or deletes them.
func (c *change) renews(chain string) bool {
	return c.rebuild || c.create || slices.Contains(c.emptyChains, chain)
}

// renewTallies takes note of counters that have begun anew with a change: they may have counted more than the
// old ones by the time that they are read.
func (e *Engine) renewTallies(c *change) {
	for name, t := range e.tallies {
		if c.renews(name) {
			t.renew()
			e.tallies[name] = t
		}
	}
}

// chainCount sums the packets that the rules of a chain have counted.
func (c *conn) chainCount(ctx context.Context, name string) (count uint64, err error) {
	request := nfnetlink.AppendText(c.request(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, c.family), unix.NFTA_RULE_TABLE, c.table)
	request = nfnetlink.AppendText(request, unix.NFTA_RULE_CHAIN, name)
	err = c.Dump(ctx, "reading chain "+name, request, func(m nfnetlink.Message) error {
		n, err := parseRuleCount(m, c.family, c.table, name)
		count += n
		return err
	})
	if isAbsent(err) {
		return 0, nil
	}
	return count, err
}

// parseRuleCount sums the packets that a rule has counted, if it is of a chain of our table.
func parseRuleCount(m nfnetlink.Message, family uint8, table, chain string) (count uint64, err error) {
	ours, there := false, false
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_RULE_TABLE:
				ours = a.Text() == table && m.Family() == family
			case unix.NFTA_RULE_CHAIN:
				there = a.Text() == chain
			case unix.NFTA_RULE_EXPRESSIONS:
				count, err = countersIn(a.Data)
			}
		}
		if err != nil {
			return 0, fmt.Errorf("rule in chain %q: %w", chain, err)
		}
	}
	if !ours || !there {
		return 0, nil
	}
	return count, nil
}

// countersIn sums the packets counted by the counters in a list of expressions.
func countersIn(list []byte) (sum uint64, err error) {
	for a, err := range nfnetlink.Attributes(list) {
		if err != nil {
			return 0, err
		}
		n, err := parseCounter(a.Data)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
