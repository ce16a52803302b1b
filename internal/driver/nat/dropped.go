package nat

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Dropped is how many packets the leak guard has dropped. The numbers never decrease while the driver
// lives, and include what the kernel had counted before.
type Dropped struct {
	Out uint64 // that would have left with an address that is to be translated
	In  uint64 // TCP segments from outside that belong to no connection
}

// Dropped reads how many packets the leak guard has dropped; on error the numbers are those last read.
func (d *Driver) Dropped(ctx context.Context) (Dropped, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.readDropped(ctx)
	return Dropped{Out: d.dropped[chainLeak].total(), In: d.dropped[chainStray].total()}, err
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

// readDropped brings the tallies up to date. A chain that is not there has dropped nothing more.
func (d *Driver) readDropped(ctx context.Context) error {
	if d.held == nil {
		return nil
	}
	for _, name := range []string{chainLeak, chainStray} {
		if d.held.chain(name) == nil {
			continue
		}
		count, err := d.conn.chainCount(ctx, name)
		if err != nil {
			return fmt.Errorf("reading the leak guard's counters: %w", err)
		}
		t := d.dropped[name]
		t.read(count)
		d.dropped[name] = t
	}
	return nil
}

// emptiesGuard says whether a change makes rules anew that count what was dropped.
func (c *change) emptiesGuard() bool {
	return c.renews(chainLeak) || c.renews(chainStray)
}

// renews says whether a change makes the rules of a chain anew, or deletes them.
func (c *change) renews(chain string) bool {
	return c.rebuild || c.create || slices.Contains(c.emptyChains, chain)
}

// renewTallies takes note of counters that have begun anew with a change: they may have counted more than the
// old ones by the time that they are read.
func (d *Driver) renewTallies(c *change) {
	for name, t := range d.dropped {
		if c.renews(name) {
			t.renew()
			d.dropped[name] = t
		}
	}
}

// chainCount sums the packets that the rules of a chain have counted.
func (c *conn) chainCount(ctx context.Context, name string) (count uint64, err error) {
	request := nfnetlink.AppendText(c.request(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, unix.NFPROTO_INET), unix.NFTA_RULE_TABLE, TableName)
	request = nfnetlink.AppendText(request, unix.NFTA_RULE_CHAIN, name)
	err = c.Dump(ctx, "reading chain "+name, request, func(m nfnetlink.Message) error {
		n, err := parseRuleCount(m, name)
		count += n
		return err
	})
	if isAbsent(err) {
		return 0, nil
	}
	return count, err
}

// parseRuleCount sums the packets that a rule has counted, if it is of our table and of a chain.
func parseRuleCount(m nfnetlink.Message, chain string) (count uint64, err error) {
	ours, there := false, false
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_RULE_TABLE:
				ours = a.Text() == TableName && m.Family() == unix.NFPROTO_INET
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
