package nat

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// What linux/netfilter/nf_tables.h has and golang.org/x/sys/unix has not.
const (
	attrChainFlags = 10 // NFTA_CHAIN_FLAGS
	attrSetExpr    = 17 // NFTA_SET_EXPR
	attrSetExprs   = 18 // NFTA_SET_EXPRESSIONS

	chainFlagBase    = 1 // NFT_CHAIN_BASE
	chainFlagBinding = 4 // NFT_CHAIN_BINDING: it lives and dies with the rule that goes to it

	elementCatchall = 2 // NFT_SET_ELEM_CATCHALL
)

// parseTable decodes the flags and the owner of a table. The rest of it is read elsewhere.
func parseTable(m nfnetlink.Message) (flags, owner uint32, err error) {
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_TABLE_FLAGS:
				flags, err = a.Uint32()
			case attrTableOwner:
				owner, err = a.Uint32()
			}
		}
		if err != nil {
			return 0, 0, fmt.Errorf("a table: %w", err)
		}
	}
	return flags, owner, nil
}

// parseChain decodes a chain without its rules, and the name of its table.
func parseChain(m nfnetlink.Message) (c chain, table string, err error) {
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_CHAIN_TABLE:
				table = a.Text()
			case unix.NFTA_CHAIN_NAME:
				c.name = a.Text()
			case unix.NFTA_CHAIN_TYPE:
				c.hook.kind = a.Text()
			case unix.NFTA_CHAIN_POLICY:
				c.hook.policy, err = a.Uint32()
			case unix.NFTA_CHAIN_HOOK:
				err = c.hook.parse(a.Data)
			case attrChainFlags:
				c.flags, err = a.Uint32()
				c.flags &^= chainFlagBase
			}
		}
		if err != nil {
			return chain{}, "", fmt.Errorf("chain %q: %w", c.name, err)
		}
	}
	return c, table, nil
}

// parse decodes the number and the priority of a hook.
func (h *hook) parse(b []byte) error {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return err
		}
		v := uint32(0)
		switch a.Kind {
		case unix.NFTA_HOOK_HOOKNUM:
			h.number, err = a.Uint32()
		case unix.NFTA_HOOK_PRIORITY:
			v, err = a.Uint32()
			h.priority = int32(v)
		}
		if err != nil {
			return fmt.Errorf("hook: %w", err)
		}
	}
	return nil
}

// parseRule decodes a rule and the names of its table and chain.
func parseRule(m nfnetlink.Message) (r rule, table, chain string, err error) {
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_RULE_TABLE:
				table = a.Text()
			case unix.NFTA_RULE_CHAIN:
				chain = a.Text()
			case unix.NFTA_RULE_EXPRESSIONS:
				r.form, err = canonical(a.Data)
			}
		}
		if err != nil {
			return rule{}, "", "", fmt.Errorf("rule in chain %q: %w", chain, err)
		}
	}
	return r, table, chain, nil
}

// parseSet decodes a set without its elements, and the name of its table.
func parseSet(m nfnetlink.Message) (s set, table string, err error) {
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_SET_TABLE:
				table = a.Text()
			case unix.NFTA_SET_NAME:
				s.name = a.Text()
			case unix.NFTA_SET_FLAGS:
				s.spec.flags, err = a.Uint32()
			case unix.NFTA_SET_KEY_TYPE:
				s.spec.keyType, err = a.Uint32()
			case unix.NFTA_SET_KEY_LEN:
				s.spec.keyLen, err = a.Uint32()
			case unix.NFTA_SET_DESC:
				s.spec.size, err = parseSetSize(a.Data)
			case attrSetExpr:
				s.spec.expr, _, err = parseExpression(a.Data)
			case attrSetExprs:
				s.spec.expr = "several"
			}
		}
		if err != nil {
			return set{}, "", fmt.Errorf("set %q: %w", s.name, err)
		}
	}
	return s, table, nil
}

func parseSetSize(b []byte) (uint32, error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return 0, err
		}
		if a.Kind == unix.NFTA_SET_DESC_SIZE {
			return a.Uint32()
		}
	}
	return 0, nil
}

// parseElements decodes the elements in a message about a set, and appends them to out. Keys that are
// not addresses are an error.
func parseElements(out []element, m nfnetlink.Message) ([]element, error) {
	for a, err := range m.Attributes() {
		if err != nil {
			return nil, err
		}
		if a.Kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for item, err := range nfnetlink.Attributes(a.Data) {
			if err != nil {
				return nil, fmt.Errorf("elements: %w", err)
			}
			e, err := parseElement(item.Data)
			if err != nil {
				return nil, fmt.Errorf("element: %w", err)
			}
			out = append(out, e)
		}
	}
	return out, nil
}

func parseElement(b []byte) (e element, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_SET_ELEM_KEY:
				e.key, err = parseKey(a.Data)
			case unix.NFTA_SET_ELEM_FLAGS:
				var flags uint32
				flags, err = a.Uint32()
				e.end, e.any = flags&unix.NFT_SET_ELEM_INTERVAL_END != 0, flags&elementCatchall != 0
			case unix.NFTA_SET_ELEM_EXPR:
				e.count, err = parseCounter(a.Data)
			}
		}
		if err != nil {
			return element{}, err
		}
	}
	if !e.key.IsValid() && !e.any {
		return element{}, fmt.Errorf("%w: no key", nfnetlink.ErrMalformed)
	}
	return e, nil
}

func parseKey(b []byte) (netip.Addr, error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return netip.Addr{}, err
		}
		if a.Kind != unix.NFTA_DATA_VALUE {
			continue
		}
		if addr, ok := netip.AddrFromSlice(a.Data); ok {
			return addr, nil
		}
		return netip.Addr{}, fmt.Errorf("%w: a key of %d bytes", nfnetlink.ErrMalformed, len(a.Data))
	}
	return netip.Addr{}, fmt.Errorf("%w: a key without value", nfnetlink.ErrMalformed)
}

// parseCounter decodes the packets of a counter expression; any other expression counts nothing.
func parseCounter(b []byte) (uint64, error) {
	name, data, err := parseExpression(b)
	if err != nil || name != counterExpr {
		return 0, err
	}
	for a, err := range nfnetlink.Attributes(data) {
		if err != nil {
			return 0, err
		}
		if a.Kind == unix.NFTA_COUNTER_PACKETS {
			return a.Uint64()
		}
	}
	return 0, nil
}

// parseSetName decodes the name of the set that elements belong to.
func parseSetName(m nfnetlink.Message) (string, error) {
	for a, err := range m.Attributes() {
		if err != nil {
			return "", err
		}
		if a.Kind == unix.NFTA_SET_ELEM_LIST_SET {
			return a.Text(), nil
		}
	}
	return "", fmt.Errorf("%w: elements of no set", nfnetlink.ErrMalformed)
}

// parseGeneration decodes the number of the ruleset's generation: each transaction of anybody in the
// network namespace begins the next.
func parseGeneration(m nfnetlink.Message) (uint32, error) {
	for a, err := range m.Attributes() {
		if err != nil {
			return 0, err
		}
		if a.Kind == unix.NFTA_GEN_ID {
			return a.Uint32()
		}
	}
	return 0, fmt.Errorf("%w: no generation", nfnetlink.ErrMalformed)
}
