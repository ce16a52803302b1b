package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
)

// asking is a BGPPeer as it concerns this node.
type asking struct {
	*model.BGPPeer
	nodes, peers *selector.Selector // peers is nil where the peer is a router
	asks         bool               // it asks this node for sessions
	is           bool               // peers selects this node
	rules        [2][]BGPRule       // import and export
	told         bool               // that another one decides about an address
	why          string             // it has a session less than it asks for
}

// findPeers finds the peers of this node, sorted by address.
func (s *speaker) findPeers() {
	s.at, s.taken = map[netip.Addr]int{}, map[netip.Addr]string{}
	for i := range s.others {
		for _, a := range s.others[i].addr {
			if a.IsValid() && s.runs(i) {
				s.at[a] = i
			}
		}
	}
	for _, p := range s.asking() {
		s.serve(p)
		s.out.Asked = append(s.out.Asked, BGPAsked{p.Name, p.Generation, p.why})
	}
	slices.SortFunc(s.out.Asked, func(a, b BGPAsked) int { return cmp.Compare(a.Resource, b.Resource) })
	if !s.all.NoMesh && !s.self.ClusterID.IsValid() {
		mesh := &asking{BGPPeer: &model.BGPPeer{Password: s.all.MeshPassword, Restart: s.all.MeshRestart}}
		for i := range s.others {
			if s.runs(i) && !s.nodes[i].ClusterID.IsValid() {
				s.pair(mesh, i, s.asn(&s.self), s.asn(&s.nodes[i]))
			}
		}
	}
	slices.SortFunc(s.out.Peers, func(a, b BGPPeer) int { return a.Address.Compare(b.Address) })
}

// asking are the BGPPeers that concern this node. One for this node alone decides about an address before one for some nodes, that
// before one for all, and of these the one lower in name.
func (s *speaker) asking() []*asking {
	var out []*asking
	for i := range s.snapshot.BGPPeers {
		p := &asking{BGPPeer: &s.snapshot.BGPPeers[i]}
		var err error
		if p.nodes, err = selector.Parse(p.NodeSelector); err != nil {
			continue // validation refuses it
		}
		if p.PeerSelector != "" {
			if p.peers, err = selector.Parse(p.PeerSelector); err != nil {
				continue
			}
			p.is = p.peers.Matches(s.self.Labels)
		}
		if p.asks = p.asksOf(&s.self); p.asks || p.is && !p.Manual {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b *asking) int { return cmp.Compare(a.rank(), b.rank()) })
	return out
}

// asksOf says whether it asks a node for sessions.
func (p *asking) asksOf(n *model.Node) bool {
	if p.Node != "" {
		return p.Node == n.Name
	}
	return p.nodes.Matches(n.Labels)
}

func (p *asking) rank() int {
	switch {
	case p.Node != "":
		return 0
	case p.NodeSelector != "" && p.NodeSelector != "all()":
		return 1
	}
	return 2
}

// serve makes the sessions that a BGPPeer asks for.
func (s *speaker) serve(p *asking) {
	s.ignore("BGPPeer", p.Name, p.Ignored)
	filters := make([]*model.BGPFilter, 0, len(p.Filters))
	for i, name := range p.Filters {
		f := s.filter(name)
		if f == nil {
			s.problem(p, fmt.Sprintf("spec.filters[%d]: there is no BGPFilter %q that can be used, and without it more routes would pass, so that no session is made: create it, or correct the list", i, name))
			return
		}
		filters = append(filters, f)
	}
	p.rules = [2][]BGPRule{rulesOf(filters, importing), rulesOf(filters, exporting)}
	own := s.asn(&s.self)
	if p.asks && p.Address.IsValid() {
		s.add(p, -1, p.Address, cmp.Or(p.LocalASN, own), p.ASN)
	}
	if p.peers == nil {
		return
	}
	for i := range s.others {
		n := &s.nodes[i]
		if !s.runs(i) {
			continue
		}
		forth, back := p.asks && p.peers.Matches(n.Labels), p.is && p.asksOf(n)
		local, remote := own, s.asn(n)
		if forth {
			local = cmp.Or(p.LocalASN, local)
		}
		if back {
			remote = cmp.Or(p.LocalASN, remote)
		}
		if forth || back && !p.Manual {
			s.pair(p, i, local, remote)
		}
	}
}

func (s *speaker) problem(p *asking, what string) {
	p.why = cmp.Or(p.why, what)
	s.out.Problems = append(s.out.Problems, "BGPPeer "+strconv.Quote(p.Name)+": "+what)
}

// filter is the BGPFilter of a name, or nil.
func (s *speaker) filter(name string) *model.BGPFilter {
	i, found := slices.BinarySearchFunc(s.snapshot.BGPFilters, name, func(f model.BGPFilter, name string) int { return cmp.Compare(f.Name, name) })
	if !found {
		return nil
	}
	return &s.snapshot.BGPFilters[i]
}

// pair makes a session with another node for each family that both have an address of.
func (s *speaker) pair(p *asking, i int, local, remote uint32) {
	for f, a := range s.others[i].addr {
		if a.IsValid() && s.uplinks[f].addr.IsValid() {
			s.add(p, i, a, local, remote)
		}
	}
}

// add makes a session with the node i, or with a router where i is less than 0.
func (s *speaker) add(p *asking, i int, a netip.Addr, local, remote uint32) {
	if _, ourselves := s.own[a]; ourselves {
		return // one BGPPeer may name all nodes
	}
	if by, taken := s.taken[a]; taken {
		if by != p.Name && p.Name != "" && !p.told {
			p.told = true // there may be one for each node
			s.problem(p, fmt.Sprintf("BGPPeer %q has a session with %s already, which decides: take one of the two away, or have them select other nodes", by, a))
		}
		return
	}
	s.taken[a] = p.Name
	if j, known := s.at[a]; known {
		i = j
	}
	linkLocal := a.Is6() && a.IsLinkLocalUnicast()
	out := BGPPeer{Resource: p.Name, Address: a, Port: p.Port, ASN: remote, LocalASN: local, V4: a.Is4() || linkLocal, V6: a.Is6(),
		Password: p.Password, Restart: p.Restart, TTLSecurity: p.TTLSecurity, AllowedLocalASNs: p.AllowedLocalASNs,
		MaxPrefixes: s.settings.maxPrefixes, NextHopSelf: p.NextHopSelf, Import: p.rules[0], Export: p.rules[1],
		Multihop: local != remote && p.TTLSecurity == 0 && !linkLocal}
	out.Hold = max(s.settings.hold, 3*p.Keepalive)
	out.Keepalive = cmp.Or(p.Keepalive, (out.Hold / 3).Truncate(time.Second))
	if !p.AnySource && !linkLocal {
		out.Source = s.uplinks[familyOf(a)].addr
	}
	var cluster netip.Addr
	if i >= 0 {
		out.Node, cluster = s.nodes[i].Name, s.nodes[i].ClusterID
	} else {
		out.BFD = s.settings.bfd // between nodes it would end with one's agent what the other knows anyway
	}
	if own := s.self.ClusterID; own.IsValid() && local == remote && cluster != own {
		out.Reflect, out.ClusterID = true, own
	}
	if out.Port == 0 {
		out.Port = model.DefaultBGPPort
		if out.Node != "" {
			out.Port = s.port(out.Node)
		}
	}
	s.out.Peers = append(s.out.Peers, out)
}
