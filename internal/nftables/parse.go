package nftables

import (
	"fmt"

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

	attrSetDescConcat = 2 // NFTA_SET_DESC_CONCAT
	attrFieldLen      = 1 // NFTA_SET_FIELD_LEN

	attrElemKeyEnd  = 10 // NFTA_SET_ELEM_KEY_END
	elementCatchall = 2  // NFT_SET_ELEM_CATCHALL
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
func parseChain(m nfnetlink.Message) (c Chain, table string, err error) {
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_CHAIN_TABLE:
				table = a.Text()
			case unix.NFTA_CHAIN_NAME:
				c.Name = a.Text()
			case unix.NFTA_CHAIN_TYPE:
				c.Hook.Kind = a.Text()
			case unix.NFTA_CHAIN_POLICY:
				var policy uint32
				policy, err = a.Uint32()
				c.Hook.Drop = policy == verdictDrop
			case unix.NFTA_CHAIN_HOOK:
				err = c.Hook.parse(a.Data)
			case attrChainFlags:
				c.flags, err = a.Uint32()
				c.flags &^= chainFlagBase
			}
		}
		if err != nil {
			return Chain{}, "", fmt.Errorf("chain %q: %w", c.Name, err)
		}
	}
	return c, table, nil
}

// parse decodes the number and the priority of a hook.
func (h *Hook) parse(b []byte) error {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return err
		}
		v := uint32(0)
		switch a.Kind {
		case unix.NFTA_HOOK_HOOKNUM:
			h.Number, err = a.Uint32()
		case unix.NFTA_HOOK_PRIORITY:
			v, err = a.Uint32()
			h.Priority = int32(v)
		case unix.NFTA_HOOK_DEV:
			h.Device = a.Text()
		}
		if err != nil {
			return fmt.Errorf("hook: %w", err)
		}
	}
	return nil
}

// parseRule decodes a rule and the names of its table and chain.
func parseRule(m nfnetlink.Message) (r Rule, table, chain string, err error) {
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
			return Rule{}, "", "", fmt.Errorf("rule in chain %q: %w", chain, err)
		}
	}
	return r, table, chain, nil
}

// parseSet decodes a set without its elements, and the name of its table.
func parseSet(m nfnetlink.Message) (s Set, table string, err error) {
	var raw rawSet
	for a, err := range m.Attributes() {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_SET_TABLE:
				table = a.Text()
			case unix.NFTA_SET_NAME:
				s.Name = a.Text()
			case unix.NFTA_SET_FLAGS:
				raw.flags, err = a.Uint32()
			case unix.NFTA_SET_KEY_TYPE:
				raw.keyType, err = a.Uint32()
			case unix.NFTA_SET_KEY_LEN:
				raw.keyLen, err = a.Uint32()
			case unix.NFTA_SET_DATA_TYPE:
				raw.dataType, err = a.Uint32()
			case unix.NFTA_SET_DATA_LEN:
				raw.dataLen, err = a.Uint32()
			case unix.NFTA_SET_DESC:
				raw.size, err = parseSetSize(a.Data)
			case attrSetExpr:
				raw.expr, _, err = parseExpression(a.Data)
			case unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_OBJ_TYPE, attrSetExprs:
				s.strange = true
			}
		}
		if err != nil {
			return Set{}, "", fmt.Errorf("set %q: %w", s.Name, err)
		}
	}
	s.describe(raw)
	return s, table, nil
}

// rawSet is how the kernel describes a set.
type rawSet struct {
	flags, keyType, keyLen, dataType, dataLen uint32
	size                                      uint32 // most elements; 0 for no bound
	expr                                      string // the name of the expression that each element carries, or ""
}

// describe takes over what the kernel says of a set. One that no table of ours has is strange.
func (s *Set) describe(raw rawSet) {
	s.Key = typesOf(raw.keyType)
	s.Ranges = raw.flags&unix.NFT_SET_INTERVAL != 0
	s.Counters = raw.expr == counterExpr
	s.anonymous = raw.flags&unix.NFT_SET_ANONYMOUS != 0
	switch {
	case raw.flags&unix.NFT_SET_MAP == 0:
	case raw.dataType == dataVerdict:
		s.Data = Verdicts
	case raw.dataType < 1<<typeBits:
		s.Data = Type(raw.dataType)
	}
	s.strange = s.strange || s.Key == nil || s.flags() != raw.flags || int(raw.keyLen) != keySize(s.Key) || raw.size != 0 ||
		raw.expr != "" && !s.Counters || s.Data != 0 && s.Data != Verdicts && (s.Data.size() == 0 || int(raw.dataLen) != s.Data.size())
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

// element is one element as the kernel has it. Its bytes are part of the message.
type element struct {
	key, keyEnd, data []byte
	verdict           *Verdict
	end               bool // it is the one after the last of a range
	any               bool // it matches what no other does ("*"), and has no key
	count             uint64
}

// parseElements hands the elements in a message about a set to handle.
func parseElements(m nfnetlink.Message, handle func(element) error) error {
	for a, err := range nfnetlink.Attributes(m.Payload()) {
		if err != nil {
			return err
		}
		if a.Kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for item, err := range nfnetlink.Attributes(a.Data) {
			if err != nil {
				return fmt.Errorf("elements: %w", err)
			}
			e, err := parseElement(item.Data)
			if err == nil {
				err = handle(e)
			}
			if err != nil {
				return fmt.Errorf("element: %w", err)
			}
		}
	}
	return nil
}

func parseElement(b []byte) (e element, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err == nil {
			switch a.Kind {
			case unix.NFTA_SET_ELEM_KEY:
				e.key, _, err = parseData(a.Data)
			case attrElemKeyEnd:
				e.keyEnd, _, err = parseData(a.Data)
			case unix.NFTA_SET_ELEM_DATA:
				e.data, e.verdict, err = parseData(a.Data)
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
	if e.key == nil && !e.any {
		return element{}, fmt.Errorf("%w: no key", nfnetlink.ErrMalformed)
	}
	return e, nil
}

// parseData decodes a value or a verdict.
func parseData(b []byte) (value []byte, v *Verdict, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return nil, nil, err
		}
		switch a.Kind {
		case unix.NFTA_DATA_VALUE:
			return a.Data, nil, nil
		case unix.NFTA_DATA_VERDICT:
			v, err := parseVerdict(a.Data)
			return nil, &v, err
		}
	}
	return nil, nil, fmt.Errorf("%w: data without value", nfnetlink.ErrMalformed)
}

func parseVerdict(b []byte) (v Verdict, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return Verdict{}, err
		}
		switch a.Kind {
		case unix.NFTA_VERDICT_CODE:
			code, err := a.Uint32()
			if err != nil {
				return Verdict{}, err
			}
			v.code = int32(code)
		case unix.NFTA_VERDICT_CHAIN:
			v.chain = a.Text()
		}
	}
	return v, nil
}

// counterExpr is the expression that counts packets.
const counterExpr = "counter"

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
