package diagnose

// Bounds on one judgement of a ruleset.
const (
	maxSteps = 2_000_000 // rules that are looked at, over all packets
	maxDepth = 64        // of chains that lead to each other
)

// walk takes one packet through chains. What it cannot know makes what follows uncertain, never wrong.
type walk struct {
	find  func(table, chain string) *Chain
	flow  *flow
	hit   func(c *Chain, r *Rule, certain bool) // called for each rule that translates the packet, or may
	steps *int

	mark    uint32
	marked  bool // mark is known
	certain bool // the packet comes here for sure
}

// chain takes the packet through the rules of a chain. It says whether the packet ends there for sure, so that
// the rules that led there go no further.
func (w *walk) chain(c *Chain, depth int) (ended bool) {
	for i := range c.Rules {
		if *w.steps++; *w.steps > maxSteps || depth > maxDepth {
			return true
		}
		r := &c.Rules[i]
		met := yes
		for k := range r.Matches {
			met = min(met, r.Matches[k].meets(w.flow, w.mark, w.marked))
		}
		if met == no {
			continue
		}
		left, ended := w.act(c, r, met == yes, depth)
		if ended || left {
			return ended
		}
	}
	return false
}

// act does what a rule says to the packet. It says whether the packet leaves the chain, and all chains, both
// for sure.
func (w *walk) act(c *Chain, r *Rule, sure bool, depth int) (left, ended bool) {
	switch r.Action.Kind {
	case ActionNone:
		return false, false
	case ActionMark:
		w.mark, w.marked = w.mark&^r.Action.Clear^r.Action.Set, w.marked && sure
		return false, false
	case ActionTranslate:
		w.hit(c, r, w.certain && sure)
		return sure, sure
	case ActionJump, ActionGoto:
		w.certain = w.certain && sure
		for _, name := range r.Action.Chains {
			if to := w.find(c.Table, name); to == nil {
				w.certain = false
			} else if w.chain(to, depth+1) && sure {
				return true, true
			}
		}
		return sure && r.Action.Kind == ActionGoto, false
	case ActionReturn, ActionEnd:
		w.certain = w.certain && sure
		return sure, sure && r.Action.Kind == ActionEnd
	default:
		w.certain = false
		for _, name := range r.Action.Chains {
			if to := w.find(c.Table, name); to != nil {
				w.chain(to, depth+1)
			}
		}
		w.certain, w.marked = false, false
		return false, false
	}
}
