package foreign

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// decoder turns the expressions of one rule into matches and an action.
type decoder struct {
	family uint8 // of the table; narrowed when the rule tells IPv4 from IPv6
	set    func(name string) *set
	link   func(index int) string
	ipsets *ipsets

	registers map[uint32]operand // by the offset of their first byte
	done      []diagnose.Rule    // those that the rule was cut into so far
	matches   []diagnose.Match
	text      []string
	action    diagnose.Action
}

// rule decodes a list of expressions. A rule that sets the mark under way becomes several.
func (d *decoder) rule(list []byte) ([]diagnose.Rule, error) {
	d.registers = map[uint32]operand{}
	for a, err := range nfnetlink.Attributes(list) {
		if err != nil {
			return nil, err
		}
		name, attrs, err := parseExpression(a.Data)
		if err == nil {
			err = d.expression(name, attrs)
		}
		if err != nil {
			return nil, fmt.Errorf("expression %q: %w", name, err)
		}
	}
	if d.action.Kind == diagnose.ActionNone && len(d.done) > 0 {
		return d.done, nil
	}
	return append(d.done, diagnose.Rule{Text: strings.Join(d.text, " "), Matches: d.matches, Action: d.action}), nil
}

// expression takes in one expression.
func (d *decoder) expression(name string, attrs map[uint16][]byte) error {
	switch name {
	case "payload", "meta", "ct", "fib", "bitwise":
		return d.load(name, attrs)
	case "cmp", "range", "lookup":
		return d.compare(name, attrs)
	case "immediate":
		return d.immediate(attrs)
	case "masq":
		d.action = diagnose.Action{Kind: diagnose.ActionTranslate, Text: "masquerade"}
	case "nat":
		d.nat(attrs)
	case "match":
		text, matches, known := d.ipsets.xtMatch(name29(attrs[unix.NFTA_MATCH_NAME]), number(attrs[unix.NFTA_MATCH_REV]), attrs[unix.NFTA_MATCH_INFO])
		if !known {
			matches = []diagnose.Match{{}}
		}
		d.add(text, matches...)
	case "target":
		text, action := xtTarget(name29(attrs[unix.NFTA_TARGET_NAME]), number(attrs[unix.NFTA_TARGET_REV]), attrs[unix.NFTA_TARGET_INFO])
		d.target(text, action)
	case "counter", "log", "last", "notrack": // they let everything pass
	case "objref":
		if number(attrs[unix.NFTA_OBJREF_IMM_TYPE]) != unix.NFT_OBJECT_COUNTER {
			d.add("objref", diagnose.Match{})
		}
	case "redir", "reject", "queue", "synproxy", "tproxy", "fwd", "dup":
		d.target(name, diagnose.Action{Kind: diagnose.ActionUnknown})
	default: // limit, quota, connlimit, socket, and what is newer than this
		d.add(name, diagnose.Match{})
	}
	return nil
}

// add adds matches with their text.
func (d *decoder) add(text string, matches ...diagnose.Match) {
	if text != "" {
		d.text = append(d.text, text)
	}
	d.matches = append(d.matches, matches...)
}

// target takes in an action. One that changes the mark, or may do anything, ends a rule, and what comes after
// it becomes another one.
func (d *decoder) target(text string, action diagnose.Action) {
	switch action.Kind {
	case diagnose.ActionMark, diagnose.ActionUnknown:
		d.done = append(d.done, diagnose.Rule{Text: strings.Join(append(d.text[:len(d.text):len(d.text)], text), " "), Matches: d.matches, Action: action})
		// What was said of the mark was said of the one before.
		rest := make([]diagnose.Match, len(d.matches))
		for i, m := range d.matches {
			if m.Kind == diagnose.MatchMark {
				m = diagnose.Match{}
			}
			rest[i] = m
		}
		d.matches = rest
	case diagnose.ActionNone:
	default:
		d.action = action
	}
}

// immediate loads a value, or ends the rule with a verdict (register 0).
func (d *decoder) immediate(attrs map[uint16][]byte) error {
	if to := number(attrs[unix.NFTA_IMMEDIATE_DREG]); to != unix.NFT_REG_VERDICT {
		value, err := attributesOf(attrs[unix.NFTA_IMMEDIATE_DATA])
		d.registers[register(to)] = operand{field: fieldValue, value: value[unix.NFTA_DATA_VALUE]}
		return err
	}
	code, chain, err := parseVerdict(attrs[unix.NFTA_IMMEDIATE_DATA])
	d.action = verdict(code, chain)
	return err
}

// The verdicts of nf_tables (linux/netfilter/nf_tables.h), beside those of linux/netfilter.h.
const (
	verdictDrop     = 0
	verdictAccept   = 1
	verdictContinue = -1
	verdictJump     = -3
	verdictGoto     = -4
	verdictReturn   = -5
)

func verdict(code int32, chain string) diagnose.Action {
	switch code {
	case verdictDrop, verdictAccept:
		return diagnose.Action{Kind: diagnose.ActionEnd}
	case verdictContinue:
		return diagnose.Action{}
	case verdictJump:
		return diagnose.Action{Kind: diagnose.ActionJump, Chains: []string{chain}}
	case verdictGoto:
		return diagnose.Action{Kind: diagnose.ActionGoto, Chains: []string{chain}}
	case verdictReturn:
		return diagnose.Action{Kind: diagnose.ActionReturn}
	default:
		return diagnose.Action{Kind: diagnose.ActionUnknown}
	}
}

// nat takes in a translation; that of destinations is none of ours, and ends the chain.
func (d *decoder) nat(attrs map[uint16][]byte) {
	if number(attrs[unix.NFTA_NAT_TYPE]) != unix.NFT_NAT_SNAT {
		d.action = diagnose.Action{Kind: diagnose.ActionEnd}
		return
	}
	text := "snat"
	if o := d.registers[register(number(attrs[unix.NFTA_NAT_REG_ADDR_MIN]))]; o.field == fieldValue {
		if a, ok := netip.AddrFromSlice(o.value); ok {
			text += " to " + a.String()
		}
	}
	d.action = diagnose.Action{Kind: diagnose.ActionTranslate, Text: text}
}

// register is the offset of a register's first byte: there are names for those of 16 bytes and of 4.
func register(name uint32) uint32 {
	if name < unix.NFT_REG32_00 {
		return name * 16
	}
	return 16 + (name-unix.NFT_REG32_00)*4
}

// name29 is the name of an extension of xtables.
func name29(b []byte) string {
	name, _, _ := strings.Cut(string(b), "\x00")
	return name
}
