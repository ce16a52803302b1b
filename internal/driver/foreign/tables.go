package foreign

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8

// place is a chain or a set in a table.
type place struct {
	family      uint8
	table, name string
}

// tables reads chains of nf_tables.
type tables struct {
	ctx    context.Context
	conn   *nfnetlink.Conn
	rules  int
	sets   map[place]*set
	ipsets *ipsets
}

// readTables reads the chains of the nat type in the postrouting hook, and those that they lead to.
func readTables(ctx context.Context, ours string, ipsets *ipsets) ([]diagnose.Chain, error) {
	socket, err := nfnetlink.Dial(0)
	if err != nil {
		return nil, err
	}
	r := &tables{ctx: ctx, conn: nfnetlink.NewConn(socket), sets: map[place]*set{}, ipsets: ipsets}
	defer r.conn.Close()
	bases, err := r.baseChains(ours)
	if err != nil {
		return nil, err
	}
	var out []diagnose.Chain
	queue, seen := []place{}, map[place]bool{}
	for _, b := range bases {
		queue, seen[b.place] = append(queue, b.place), true
		out = append(out, b.chain)
	}
	for i := 0; i < len(queue); i++ { // out[i] is the chain at queue[i]
		var err error
		if out[i].Rules, err = r.readRules(queue[i]); err != nil {
			return out[:len(bases)], err
		}
		for _, rule := range out[i].Rules {
			for _, name := range rule.Action.Chains {
				to := place{queue[i].family, queue[i].table, name}
				if seen[to] {
					continue
				}
				if len(queue) == maxChains {
					return out, fmt.Errorf("chains of the nat type: %w", errTooMany)
				}
				queue, seen[to] = append(queue, to), true
				out = append(out, diagnose.Chain{Table: out[i].Table, Name: name})
			}
		}
	}
	return out, nil
}

// dump dumps objects, and begins anew if others change the ruleset meanwhile.
func (r *tables) dump(doing string, kind uint16, family uint8, attrs []byte, begin func(), handle func(nfnetlink.Message) error) error {
	return r.dumpKind(doing, subsystem|kind, family, attrs, begin, handle)
}

// dumpKind does so for a message of any subsystem.
func (r *tables) dumpKind(doing string, kind uint16, family uint8, attrs []byte, begin func(), handle func(nfnetlink.Message) error) error {
	for try := 1; ; try++ {
		begin()
		request := append(r.conn.Request(kind, unix.NLM_F_DUMP, family), attrs...)
		err := r.conn.Dump(r.ctx, doing, request, handle)
		if !errors.Is(err, nfnetlink.ErrInterrupted) || try == maxTries {
			return err
		}
	}
}

// baseChain is a chain that the hook leads to.
type baseChain struct {
	place
	chain diagnose.Chain
}

func (r *tables) baseChains(ours string) (out []baseChain, err error) {
	dormant, err := r.dormant()
	if err != nil {
		return nil, err
	}
	err = r.dump("reading the chains of all tables", unix.NFT_MSG_GETCHAIN, unix.NFPROTO_UNSPEC, nil, func() { out = nil }, func(m nfnetlink.Message) error {
		b, ok, err := parseBase(m)
		if err == nil && ok && (b.table != ours || b.family != unix.NFPROTO_INET) && !dormant[place{b.family, b.table, ""}] {
			out = append(out, b)
		}
		return err
	})
	return out, err
}

// dormant are the tables whose chains see no packet until somebody wakes them.
func (r *tables) dormant() (out map[place]bool, err error) {
	err = r.dump("reading the tables", unix.NFT_MSG_GETTABLE, unix.NFPROTO_UNSPEC, nil, func() { out = map[place]bool{} }, func(m nfnetlink.Message) error {
		t, flags := place{family: m.Family()}, uint32(0)
		for a, err := range m.Attributes() {
			if err == nil && a.Kind == unix.NFTA_TABLE_FLAGS {
				flags, err = a.Uint32()
			}
			if err != nil {
				return fmt.Errorf("a table: %w", err)
			}
			if a.Kind == unix.NFTA_TABLE_NAME {
				t.table = a.Text()
			}
		}
		const dormant = 1 // NFT_TABLE_F_DORMANT
		if flags&dormant != 0 {
			out[t] = true
		}
		return nil
	})
	return out, err
}

// parseBase decodes a chain; false if it is none of the nat type in the postrouting hook.
func parseBase(m nfnetlink.Message) (b baseChain, ok bool, err error) {
	hook, kind := uint32(0), ""
	b.family = m.Family()
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_CHAIN_TABLE:
				b.table = a.Text()
			case unix.NFTA_CHAIN_NAME:
				b.name = a.Text()
			case unix.NFTA_CHAIN_TYPE:
				kind = a.Text()
			case unix.NFTA_CHAIN_HOOK:
				hook, b.chain.Priority, err = parseHook(a.Data)
			}
		}
		if err != nil {
			return baseChain{}, false, fmt.Errorf("chain %q: %w", b.name, err)
		}
	}
	b.chain.Base, b.chain.Name = true, b.name
	b.chain.Table = fmt.Sprintf("table %s %s", familyName(b.family), b.table)
	b.chain.IPv4 = b.family == unix.NFPROTO_IPV4 || b.family == unix.NFPROTO_INET
	b.chain.IPv6 = b.family == unix.NFPROTO_IPV6 || b.family == unix.NFPROTO_INET
	return b, kind == "nat" && hook == unix.NF_INET_POST_ROUTING && (b.chain.IPv4 || b.chain.IPv6), nil
}

func parseHook(b []byte) (number uint32, priority int32, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		v := uint32(0)
		if err == nil && (a.Kind == unix.NFTA_HOOK_HOOKNUM || a.Kind == unix.NFTA_HOOK_PRIORITY) {
			v, err = a.Uint32()
		}
		if err != nil {
			return 0, 0, err
		}
		switch a.Kind {
		case unix.NFTA_HOOK_HOOKNUM:
			number = v
		case unix.NFTA_HOOK_PRIORITY:
			priority = int32(v)
		}
	}
	return number, priority, nil
}

func familyName(family uint8) string {
	switch family {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	default:
		return fmt.Sprintf("family %d", family)
	}
}

// rawRule is a rule before its sets are known.
type rawRule struct {
	handle      uint64
	expressions []byte
}

func (r *tables) readRules(in place) ([]diagnose.Rule, error) {
	doing := fmt.Sprintf("reading the rules of table %s %s, chain %s", familyName(in.family), in.table, in.name)
	attrs := nfnetlink.AppendText(nil, unix.NFTA_RULE_TABLE, in.table)
	attrs = nfnetlink.AppendText(attrs, unix.NFTA_RULE_CHAIN, in.name)
	var raw []rawRule
	err := r.dump(doing, unix.NFT_MSG_GETRULE, in.family, attrs, func() { raw = nil }, func(m nfnetlink.Message) error {
		if r.rules+len(raw) >= maxRules {
			return errTooMany
		}
		rule, where, err := parseRule(m)
		if err == nil && where == in { // kernels may send more than was asked for
			rule.expressions = append([]byte(nil), rule.expressions...)
			raw = append(raw, rule)
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // the chain has gone since
	}
	if err != nil {
		return nil, err
	}
	r.rules += len(raw)
	var out []diagnose.Rule
	for i, rule := range raw {
		d := decoder{family: in.family, set: func(name string) *set { return r.readSet(place{in.family, in.table, name}) }, link: interfaceName, ipsets: r.ipsets}
		rules, err := d.rule(rule.expressions)
		if err != nil {
			return nil, fmt.Errorf("%s: rule %d: %w", doing, i+1, err)
		}
		for k := range rules {
			rules[k].Where = fmt.Sprintf("rule %d (handle %d)", i+1, rule.handle)
			rules[k].Delete = fmt.Sprintf("nft delete rule %s %s %s handle %d", familyName(in.family), in.table, in.name, rule.handle)
		}
		out = append(out, rules...)
	}
	return out, nil
}

func parseRule(m nfnetlink.Message) (r rawRule, where place, err error) {
	where.family = m.Family()
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_RULE_TABLE:
				where.table = a.Text()
			case unix.NFTA_RULE_CHAIN:
				where.name = a.Text()
			case unix.NFTA_RULE_HANDLE:
				r.handle, err = a.Uint64()
			case unix.NFTA_RULE_EXPRESSIONS:
				r.expressions = a.Data
			}
		}
		if err != nil {
			return rawRule{}, place{}, fmt.Errorf("a rule of chain %q: %w", where.name, err)
		}
	}
	return r, where, nil
}

// parseExpression splits an expression into its name and its attributes by their types.
func parseExpression(b []byte) (name string, data map[uint16][]byte, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_EXPR_NAME:
				name = a.Text()
			case unix.NFTA_EXPR_DATA:
				data, err = attributesOf(a.Data)
			}
		}
		if err != nil {
			return "", nil, err
		}
	}
	return name, data, nil
}

// attributesOf decodes attributes into a map; of several of one type the last counts.
func attributesOf(b []byte) (map[uint16][]byte, error) {
	out := map[uint16][]byte{}
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return nil, err
		}
		out[a.Kind] = a.Data
	}
	return out, nil
}

// number reads a number in network byte order; 0 where there is none.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}
