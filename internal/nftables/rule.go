package nftables

import (
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Rule is one rule. Make it with NewRule.
type Rule struct {
	wire []byte // the list of expressions as it is sent; nil in a rule that was read
	form string // of a rule that was read; see canonical
	// feature names what the kernel must have for the rule, beyond what every nf_tables has; "" if nothing.
	feature string
	err     error // why it could not be written
}

// Term is a part of a rule: what a packet is asked, or what becomes of it.
type Term interface{ appendTo(r *Rule) }

// NewRule makes a rule that passes through its terms from the first to the last, or ends at the first that does not
// match.
func NewRule(terms ...Term) Rule {
	var r Rule
	Terms(terms).appendTo(&r)
	return r
}

// Terms are several terms as one.
type Terms []Term

func (t Terms) appendTo(r *Rule) {
	for _, one := range t {
		one.appendTo(r)
	}
}

// Expr is a term of expressions. The numbers of registers are those by which the kernel reports them: unix.NFT_REG_…
// where a value begins at one of these.
func Expr(list ...expr.Any) Term { return expressions(list) }

type expressions []expr.Any

func (t expressions) appendTo(r *Rule) {
	for _, e := range t {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil && r.err == nil {
			r.err = fmt.Errorf("encoding %T: %w", e, err)
		}
		r.wire = nfnetlink.AppendAttr(r.wire, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
	}
}

// RawExpr is a term of one expression whose data is written by the caller.
func RawExpr(name string, data []byte) Term { return rawExpression{name, data} }

type rawExpression struct {
	name string
	data []byte
}

func (t rawExpression) appendTo(r *Rule) {
	var at int
	r.wire, at = nfnetlink.OpenNest(r.wire, unix.NFTA_LIST_ELEM)
	r.wire = nfnetlink.AppendText(r.wire, unix.NFTA_EXPR_NAME, t.name)
	r.wire = nfnetlink.AppendAttr(r.wire, unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, t.data)
	nfnetlink.CloseNest(r.wire, at)
}

// Needs names an expression that a rule has, and its module, which a kernel may lack.
func Needs(expression, module string) Term { return need(expression + " (module " + module + ")") }

type need string

func (t need) appendTo(r *Rule) { r.feature = "expression " + string(t) }

func (v Verdict) appendTo(r *Rule) {
	Expr(&expr.Verdict{Kind: expr.VerdictKind(v.code), Chain: v.chain}).appendTo(r)
}

// EqualRules says whether two lists of rules do the same.
func EqualRules(a, b []Rule) bool { return slices.EqualFunc(a, b, Rule.equal) }

func (r Rule) equal(o Rule) bool {
	if r.wire != nil && o.wire != nil {
		return string(r.wire) == string(o.wire)
	}
	return r.Form() == o.Form()
}

// String renders the rule as the nft command does, for people.
func (r Rule) String() string { return text(r.Form()) }

// Form is a rule in the form in which rules are compared; see canonical.
func (r Rule) Form() string {
	if r.wire == nil {
		return r.form
	}
	form, err := canonical(r.wire)
	if err != nil {
		return "malformed: " + string(r.wire) // equal to none that was read
	}
	return form
}

// refersTo says whether a rule of ours goes to a chain, or looks into a set.
func (r Rule) refersTo(name string) bool {
	for a, err := range nfnetlink.Attributes(r.wire) {
		if err != nil {
			return true
		}
		expression, data, err := parseExpression(a.Data)
		if err != nil {
			return true
		}
		switch expression {
		case "lookup":
			for a, err := range nfnetlink.Attributes(data) {
				if err != nil || a.Kind == unix.NFTA_LOOKUP_SET && a.Text() == name {
					return true
				}
			}
		case "immediate":
			for a, err := range nfnetlink.Attributes(data) {
				if err != nil {
					return true
				}
				if a.Kind != unix.NFTA_IMMEDIATE_DATA {
					continue
				}
				if _, v, err := parseData(a.Data); err != nil || v != nil && v.chain == name {
					return true
				}
			}
		}
	}
	return false
}
