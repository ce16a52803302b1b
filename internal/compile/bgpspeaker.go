package compile

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

// The names of the BGPConfigurations that are used, as package api/v3 has them: that of the one for all nodes, and the beginning
// of that of one for a node.
const (
	bgpForAll  = "default"
	bgpForNode = "node."
)

// NeedsLabels says whether the plans of nodes depend on the labels of other nodes.
func NeedsLabels(s *model.Snapshot) bool {
	return slices.ContainsFunc(s.BGPPeers, func(p model.BGPPeer) bool { return p.PeerSelector != "" })
}

// speaker decides with whom this node speaks BGP.
type speaker struct {
	*ground
	snapshot *model.Snapshot
	self     model.Node
	configs  map[string]*model.BGPConfiguration
	all      *model.BGPConfiguration // the one for all nodes; without one, an empty one
	at       map[netip.Addr]int      // the other nodes, by address, as ground.others
	taken    map[netip.Addr]string   // the BGPPeers that decide about addresses; "" for the mesh
	out      BGP
}

// speak decides how this node speaks BGP, but for what depends on blocks, and which communities blocks get. The mesh takes a
// BGPConfiguration for all nodes: the routes between the nodes of a cluster stand without it, so that no user is surprised by a server
// on each node.
func (g *ground) speak(snapshot *model.Snapshot) (BGP, []model.PrefixAdvertisement) {
	s := &speaker{ground: g, snapshot: snapshot, self: model.Node{Name: g.name}, configs: map[string]*model.BGPConfiguration{}, all: &model.BGPConfiguration{NoMesh: true}}
	for i := range snapshot.BGPConfigurations {
		s.configure(&snapshot.BGPConfigurations[i])
	}
	if len(snapshot.BGPPeers) == 0 && s.all.NoMesh {
		return s.out, nil
	}
	for i := range g.nodes {
		if g.nodes[i].Name == g.name {
			s.self = g.nodes[i]
		}
	}
	s.findPeers()
	if len(s.out.Peers) == 0 {
		return s.out, nil
	}
	own := s.configs[bgpForNode+g.name]
	s.out.Run, s.out.ASN, s.out.ListenPort = true, s.asn(&s.self), s.port(g.name)
	s.out.Listen = s.listen(own)
	s.out.RouterID = s.routerID()
	if slices.ContainsFunc(s.out.Peers, func(p BGPPeer) bool { return p.Reflect }) {
		s.out.Reflected = reflected(snapshot.Pools)
	}
	if own != nil && own.Advertisements != nil {
		return s.out, own.Advertisements
	}
	return s.out, s.all.Advertisements
}

// configure takes in a BGPConfiguration.
func (s *speaker) configure(c *model.BGPConfiguration) {
	switch {
	case c.Name == bgpForAll:
		s.all = c
	case !strings.HasPrefix(c.Name, bgpForNode):
		s.out.Ignored = append(s.out.Ignored, fmt.Sprintf("BGPConfiguration %q: is neither %s nor %sNAME, with the name of a node", c.Name, bgpForAll, bgpForNode))
		return
	}
	s.configs[c.Name] = c
	if c.Name == bgpForAll || c.Name == bgpForNode+s.name {
		s.ignore("BGPConfiguration", c.Name, c.Ignored)
	}
}

func (s *speaker) ignore(kind, name string, fields []string) {
	for _, field := range fields {
		s.out.Ignored = append(s.out.Ignored, kind+" "+strconv.Quote(name)+": "+field)
	}
}

// asn is the AS number of a node.
func (s *speaker) asn(n *model.Node) uint32 {
	switch {
	case n.ASN != 0:
		return n.ASN
	case s.all.ASN != 0:
		return s.all.ASN
	}
	return model.DefaultASN
}

// port is the TCP port on which a node listens.
func (s *speaker) port(node string) uint16 {
	if c := s.configs[bgpForNode+node]; c != nil && c.Port != 0 {
		return c.Port
	}
	if s.all.Port != 0 {
		return s.all.Port
	}
	return model.DefaultBGPPort
}

// listen are the addresses to listen at.
func (s *speaker) listen(own *model.BGPConfiguration) []netip.Addr {
	by := s.all
	if own != nil && own.NodeIP != nil {
		by = own
	}
	if by.NodeIP == nil || !*by.NodeIP {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	var out []netip.Addr
	for _, u := range s.uplinks {
		if u.addr.IsValid() {
			out = append(out, u.addr)
		}
	}
	if len(out) == 0 {
		s.out.Problems = append(s.out.Problems, fmt.Sprintf("BGPConfiguration %q: spec.bindMode: is NodeIP, and this node has no address by which other nodes reach it, so that it accepts no session: set None", by.Name))
	}
	return out
}

// routerID is this node's BGP identifier (RFC 6286): its IPv4 address, or what its name comes to.
func (s *speaker) routerID() netip.Addr {
	own := identify(s.name, s.uplinks[v4].addr)
	for i := range s.others {
		if name := s.nodes[i].Name; s.runs(i) && identify(name, s.others[i].addr[v4]) == own {
			s.out.Problems = append(s.out.Problems, fmt.Sprintf("this node and node %q have the same router ID, %s, so that no peer can tell them apart: give one of them another IPv4 address", name, own))
			break
		}
	}
	return own
}

func identify(name string, a netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	sum := sha256.Sum256([]byte(name))
	id := [4]byte(sum[:])
	id[0] |= 1 // 0 is none
	return netip.AddrFrom4(id)
}

// runs says whether a Node is another one that runs a pod network of ours.
func (s *speaker) runs(i int) bool {
	j, known := s.byName[s.nodes[i].Name]
	return known && i == int(j)
}

// bgp is how this node speaks BGP, with what depends on blocks.
func (b *between) bgp() BGP {
	out := b.speech
	if !out.Run {
		return out
	}
	out.Withheld = slices.Clone(b.blocks.withheld)
	for a := range b.own {
		out.Own = append(out.Own, netip.PrefixFrom(a, a.BitLen()))
	}
	for _, d := range b.blocks.good {
		if d.block.Node != b.name {
			continue
		}
		cidr, pool := d.block.CIDR, d.block.Pool
		out.Own = append(out.Own, cidr)
		switch {
		case b.pools[pool].DisableBGPExport:
			out.Withheld = append(out.Withheld, Withheld{cidr, pool, "pool " + pool + " has disableBGPExport: true"})
		case d.route.Way != Here: // what is free in it would go back and forth between the node and its router
			out.Withheld = append(out.Withheld, Withheld{cidr, pool, d.route.Reason()})
		default:
			out.Announcements = append(out.Announcements, Announcement{Prefix: cidr, Communities: communitiesOf(b.tagged, cidr), Pool: pool,
				Why: "this node owns the block, of pool " + pool})
		}
	}
	slices.SortFunc(out.Withheld, func(a, b Withheld) int { return a.Prefix.Compare(b.Prefix) })
	slices.SortFunc(out.Own, netip.Prefix.Compare)
	out.Own = slices.Compact(out.Own)
	return out
}

// communitiesOf are those of all entries that a block lies in.
func communitiesOf(entries []model.PrefixAdvertisement, block netip.Prefix) []model.Community {
	var out []model.Community
	for _, e := range entries {
		if covers(e.CIDR, block) {
			out = append(out, e.Communities...)
		}
	}
	slices.SortFunc(out, model.Community.Compare)
	return slices.Compact(out)
}

// reflected are the ranges of pools of which routes may be told.
func reflected(pools []*model.Pool) []netip.Prefix {
	var set netipx.IPSetBuilder
	for _, p := range pools {
		if !p.LoadBalancerOnly() && !p.DisableBGPExport {
			set.AddPrefix(p.CIDR)
		}
	}
	all, err := set.IPSet()
	if err != nil {
		return nil // of a range that is none; pools have none such
	}
	return all.Prefixes()
}
