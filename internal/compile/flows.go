package compile

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

// Tracked is a flow that the kernel tracks, as far as it is judged.
type Tracked struct {
	Protocol Protocol
	// Source is who opened the flow, with its port, or its identifier for ICMP.
	Source netip.AddrPort
	// Peer is who answers: the real destination, after any service translation.
	Peer netip.Addr
	// Seen is what the peer takes for the source: Source itself, or what it was translated to.
	Seen netip.AddrPort
	// Answered says that a packet of the peer's was seen.
	Answered bool
	// Older says that the flow was found before to live under an older decision.
	Older bool
}

// Fate is what becomes of a flow.
type Fate uint8

// The fates.
const (
	// Stays is that of a flow that is as the plan wants it, and of one that is none of ours.
	Stays Fate = iota
	// Outlives is that of a flow which finishes under an older decision.
	Outlives
	// Ends is that of a flow whose next packet is to be decided anew.
	Ends
)

// Change judges flows by a change of plans.
//
// A flow is affected if what is decided for its source towards who really answers it differs from what it
// has. Its original destination plays no part, since that may be a service. Somebody else's translation is
// never touched: one counts as ours only if a plan that stood would have made it.
//
// The kernel does not know by which interface a flow leaves. So, while outInterfaces restricts translation,
// a flow that is not translated is judged as if it left by a covered interface, unless a plan that stood
// with the same outInterfaces would have translated it there: then it leaves by another one. And a flow that
// is translated is judged as if it still left by a covered one.
type Change struct {
	// Stood are the plans that stood before, since flows were last judged; the newest last. None means
	// that none did, as far as is known.
	Stood []*Plan
	// Now is the plan that stands.
	Now *Plan
	// Tampered says that for a while no plan may have stood, because of somebody else.
	Tampered bool
}

// Judge says what becomes of a flow.
func (c Change) Judge(f *Tracked) Fate {
	if !c.affects(f) {
		return Stays
	}
	switch {
	case c.Tampered && f.ownAddress() && !f.Older:
		return Ends // it was opened while nothing translated it
	case c.Now.NAT.ExistingFlows == model.FlowsReset:
		return Ends
	case c.Now.NAT.ExistingFlows == model.FlowsKeep:
		return Outlives
	case f.Protocol.connects() && f.Answered:
		return Outlives
	default:
		return Ends
	}
}

// KeepPlaces says whether what peers still send to flows that end must open no others. It is not so where
// flows end only to make sure, since most may leave by an interface that is not covered: these shall go on, and
// would get another port.
func (c Change) KeepPlaces() bool { return !c.Tampered || len(c.Now.NAT.OutInterfaces) == 0 }

// connects says whether a protocol has connections, which do not survive a change of address.
func (p Protocol) connects() bool { return p == TCP || p == SCTP }

// ownAddress says whether the peer sees the flow's own address. Its port may differ all the same, where it was
// in use.
func (f *Tracked) ownAddress() bool { return f.Seen.Addr() == f.Source.Addr() }

func (c Change) affects(f *Tracked) bool {
	switch {
	case f.ownAddress() && c.Now.Translates(f):
		return !c.Now.gives(f) && !c.leavesUncovered(f)
	case f.ownAddress():
		// Its port made way for an entry that kept the place of a flow which we ended.
		return f.Seen != f.Source && slices.ContainsFunc(c.Stood, func(p *Plan) bool { return p.Translates(f) })
	}
	if !f.Older && !slices.ContainsFunc(c.Stood, func(p *Plan) bool { return p.Translates(f) && p.gives(f) }) {
		return false
	}
	return !c.Now.Translates(f) || !c.Now.gives(f) || c.movesOff(f)
}

// Wants says whether the flow is translated as the plan translates, as far as one can know without the
// interface by which it leaves.
func (p *Plan) Wants(f *Tracked) bool { return p.Translates(f) && p.gives(f) }

// Holders finds the pool of a flow's source: the one that decides that it is translated, or else the most
// specific one that holds the address, or "". It is for one goroutine at a time.
func (p *Plan) Holders() func(netip.Addr) string {
	var all *bart.Table[*model.Pool] // made when it is first asked
	return func(a netip.Addr) string {
		if s, ok := p.NAT.source(a); ok {
			return s.Pool
		}
		if all == nil {
			all = new(bart.Table[*model.Pool])
			for _, q := range p.pools {
				if other, ok := all.Get(q.CIDR); !q.LoadBalancerOnly() && (!ok || q.Older(other)) {
					all.Insert(q.CIDR, q)
				}
			}
		}
		if q, ok := all.Lookup(a); ok {
			return q.Name
		}
		return ""
	}
}

// Translates says whether a plan translates the flow, if it leaves by an interface that is covered.
func (p *Plan) Translates(f *Tracked) bool {
	_, ok := p.NAT.source(f.Source.Addr())
	return ok && !p.NAT.exempts(f.Peer) && !p.isLocal(f.Peer)
}

// gives says whether a plan that translates the flow could have given it the address and port that it has.
func (p *Plan) gives(f *Tracked) bool {
	ports := p.NAT.PortsFor(f.Protocol)
	if !ports.IsZero() && (f.Seen.Port() < ports.First || f.Seen.Port() > ports.Last) {
		return false
	}
	if to := p.NAT.To(f.Source.Addr()); to.IsValid() {
		return f.Seen.Addr() == to
	}
	seen := f.Seen.Addr()
	return p.isLocal(seen) || seen.Is6() && seen.IsLinkLocalUnicast() // of these a node does not list its own
}

// leavesUncovered says whether a flow that is not translated must leave by an interface that is not
// covered: a plan with the same ones stood, would have translated it, and has not.
func (c Change) leavesUncovered(f *Tracked) bool {
	if len(c.Now.NAT.OutInterfaces) == 0 || f.Older || c.Tampered {
		return false
	}
	return slices.ContainsFunc(c.Stood, func(p *Plan) bool {
		return p.Translates(f) && slices.Equal(p.NAT.OutInterfaces, c.Now.NAT.OutInterfaces)
	})
}

// movesOff says whether the flow has a configured address that is no longer configured. The interface by
// which it leaves may have the same one, but that is not known.
func (c Change) movesOff(f *Tracked) bool {
	source := f.Source.Addr()
	return !c.Now.NAT.To(source).IsValid() &&
		slices.ContainsFunc(c.Stood, func(p *Plan) bool { return p.NAT.To(source) == f.Seen.Addr() })
}

// Found is the plan that seems to have stood when these ranges were found in the kernel: this plan but for
// them, with a node's address for any that is configured, and without outInterfaces if it covered others than this
// plan, whatever they were.
func (p *Plan) Found(sources []Source, exempt []netipx.IPRange, covered bool) *Plan {
	q := *p
	if !covered {
		q.NAT.OutInterfaces = nil
	}
	q.NAT.Sources, q.NAT.Exempt = sources, exempt
	q.NAT.To4, q.NAT.To6, q.NAT.Ports, q.NAT.UDPPorts = netip.Addr{}, netip.Addr{}, model.PortRange{}, model.PortRange{}
	return &q
}

// SameForFlows says whether two plans judge every flow alike, so that going from one to the other changes
// nothing for any.
func (n *NAT) SameForFlows(m *NAT) bool {
	return n.ExistingFlows == m.ExistingFlows && n.To4 == m.To4 && n.To6 == m.To6 && n.Ports == m.Ports && n.UDPPorts == m.UDPPorts &&
		slices.Equal(n.OutInterfaces, m.OutInterfaces) && slices.Equal(n.Exempt, m.Exempt) &&
		slices.EqualFunc(n.Sources, m.Sources, func(a, b Source) bool { return a.Range == b.Range })
}
