package diagnose

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/internal/compile"
)

const (
	// busiestShown is how many destinations are told of.
	busiestShown = 5
	// maxDestinations bounds the memory for counting: with more destinations than that, the counts of all are
	// too low by at most one in so many of all flows.
	maxDestinations = 16_384
	// maxAddresses bounds the translated addresses that are told of.
	maxAddresses = 64
	// nearlyUsedUp is the share of the ports towards one destination, in percent, from which it is reported. The
	// kernel tries some 200 ports at random before it gives up, and so fails now and then before all are used.
	nearlyUsedUp = 90
	// freePorts are those that the kernel chooses from where no range is set: 1024 to 65535
	// (nf_nat_l4proto_unique_tuple of net/netfilter/nf_nat_core.c).
	freePorts = 65536 - 1024
)

// Ports is which source ports translated connections use.
type Ports struct {
	// Addresses has, for each address and protocol, how many flows there are, and how many different ports they
	// use; the busiest first, at most 64.
	Addresses []AddressPorts `json:"addresses"`
	// Destinations are the five towards which most ports of one address are in use, by their share.
	Destinations []DestinationPorts `json:"destinations"`
}

// AddressPorts is what is in use of one translated address.
type AddressPorts struct {
	Address  netip.Addr `json:"address"`
	Protocol string     `json:"protocol"` // tcp, udp or sctp
	Flows    int        `json:"flows"`
	Ports    int        `json:"ports"`
}

// DestinationPorts is what is in use towards one destination. A port serves one flow for each destination.
type DestinationPorts struct {
	Destination netip.AddrPort `json:"destination"` // after any service translation
	Protocol    string         `json:"protocol"`
	Address     netip.Addr     `json:"address"` // translated to
	Used        int            `json:"used"`
	Available   int            `json:"available"`
}

// Percent is the share of the available ports that is in use.
func (d *DestinationPorts) Percent() int { return d.Used * 100 / max(d.Available, 1) }

// PortCounter counts the ports of translated flows as they come by, in bounded memory.
type PortCounter struct {
	nat          *compile.NAT
	addresses    map[addressKey]*addressUse
	destinations map[destinationKey]int
}

type addressKey struct {
	address  netip.Addr
	protocol compile.Protocol
}

type addressUse struct {
	flows int
	ports [1 << 16 / 64]uint64 // a bit for each
}

type destinationKey struct {
	addressKey
	destination netip.AddrPort
}

// NewPortCounter counts flows that a plan translates.
func NewPortCounter(nat *compile.NAT) *PortCounter {
	return &PortCounter{nat: nat, addresses: map[addressKey]*addressUse{}, destinations: map[destinationKey]int{}}
}

// protocolName names the protocols with ports, which are counted; "" for others.
func protocolName(p compile.Protocol) string {
	switch p {
	case compile.TCP:
		return "tcp"
	case compile.UDP:
		return "udp"
	case compile.SCTP:
		return "sctp"
	}
	return ""
}

// Add takes in a flow: who opened it, who the other end takes for that, and the other end.
func (c *PortCounter) Add(protocol compile.Protocol, source netip.Addr, seen, peer netip.AddrPort) {
	if protocolName(protocol) == "" || source == seen.Addr() || !translated(c.nat, source) {
		return
	}
	key := addressKey{seen.Addr(), protocol}
	use := c.addresses[key]
	if use == nil {
		if len(c.addresses) >= maxAddresses {
			return
		}
		use = &addressUse{}
		c.addresses[key] = use
	}
	use.flows++
	use.ports[seen.Port()/64] |= 1 << (seen.Port() % 64)

	c.destinations[destinationKey{key, peer}]++
	if len(c.destinations) > maxDestinations {
		c.thin()
	}
}

// thin makes room by taking one from every destination, as in the algorithm of Misra and Gries: those with
// many flows remain.
func (c *PortCounter) thin() {
	for k := range c.destinations {
		if c.destinations[k]--; c.destinations[k] == 0 {
			delete(c.destinations, k)
		}
	}
}

// Result is what was counted so far.
func (c *PortCounter) Result() *Ports {
	p := &Ports{Addresses: []AddressPorts{}, Destinations: []DestinationPorts{}}
	for k, use := range c.addresses {
		n := 0
		for _, word := range use.ports {
			n += bits.OnesCount64(word)
		}
		p.Addresses = append(p.Addresses, AddressPorts{k.address, protocolName(k.protocol), use.flows, n})
	}
	slices.SortFunc(p.Addresses, func(a, b AddressPorts) int {
		return cmp.Or(cmp.Compare(b.Flows, a.Flows), a.Address.Compare(b.Address), cmp.Compare(a.Protocol, b.Protocol))
	})
	for k := range maps.Keys(c.destinations) {
		p.Destinations = append(p.Destinations, DestinationPorts{k.destination, protocolName(k.protocol), k.address, c.destinations[k], available(c.nat, k.protocol)})
	}
	slices.SortFunc(p.Destinations, func(a, b DestinationPorts) int {
		// used/available, without the division
		return cmp.Or(cmp.Compare(b.Used*a.Available, a.Used*b.Available), a.Destination.Compare(b.Destination), a.Address.Compare(b.Address), cmp.Compare(a.Protocol, b.Protocol))
	})
	p.Destinations = slices.Clone(p.Destinations[:min(len(p.Destinations), busiestShown)])
	return p
}

// available is how many ports the connections of a protocol may have.
func available(nat *compile.NAT, protocol compile.Protocol) int {
	if r := nat.PortsFor(protocol); !r.IsZero() {
		return int(r.Last) - int(r.First) + 1
	}
	return freePorts
}

// usedUp finds destinations towards which few ports are left.
func usedUp(p *Ports) []Problem {
	var found []Problem
	for i := range p.Destinations {
		d := &p.Destinations[i]
		if d.Used*100 < d.Available*nearlyUsedUp {
			continue
		}
		found = append(found, Problem{Kind: PortsUsedUp, Object: fmt.Sprintf("%s connections from %s to %s", d.Protocol, d.Address, d.Destination),
			What:   fmt.Sprintf("%d of %d source ports are in use (%d%%): when all are, the kernel drops new connections", d.Used, d.Available, d.Percent()),
			Remedy: "widen portRange; keep connections open and use them again; or let pods on more nodes talk to it"})
	}
	return found
}
