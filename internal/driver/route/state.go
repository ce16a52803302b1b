package route

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
)

// Metrics: the lowest wins. Of IPv6, 0 means 1024.
const (
	metric4           = 0
	metric6           = 1
	metricUnreachable = 1 << 30
)

// entry is a route as the kernel has it.
type entry struct {
	to       netip.Prefix
	metric   uint32
	kind     uint8 // unix.RTN_UNICAST or RTN_UNREACHABLE
	dev      int32 // index of a VXLAN device of ours; 0: another interface, which the kernel finds by the gateway
	via, src netip.Addr
}

// compare orders routes by what the kernel tells them apart by.
func (e entry) compare(o entry) int {
	return cmp.Or(e.to.Compare(o.to), cmp.Compare(e.metric, o.metric))
}

// String says what a route is, for messages.
func (e entry) String() string {
	if e.kind != unix.RTN_UNICAST {
		return fmt.Sprintf("the unreachable route to %s", e.to)
	}
	return fmt.Sprintf("the route to %s via %s", e.to, e.via)
}

// unreachable is the route by which no packet to a prefix leaves.
func unreachable(to netip.Prefix) entry {
	return entry{to: to, metric: metricUnreachable, kind: unix.RTN_UNREACHABLE}
}

// neighbour is the hardware address of another node's tunnel.
type neighbour struct {
	addr netip.Addr
	mac  [6]byte
}

func (n neighbour) compare(o neighbour) int { return n.addr.Compare(o.addr) }

// forward is the node that has a hardware address.
type forward struct {
	mac [6]byte
	to  netip.Addr
}

func (f forward) compare(o forward) int { return bytes.Compare(f.mac[:], o.mac[:]) }

// device is a VXLAN device and what stands on it. Its slices are sorted.
type device struct {
	name  string
	index int32
	kind  string // "vxlan", or another where the name is taken
	up    bool

	// What cannot be changed in place. Odd says that it has an option that ours has not, such as learning or a group policy.
	vni  uint32
	port uint16
	odd  bool

	local netip.Addr
	mac   [6]byte
	mtu   int

	addresses  []netip.Prefix // without link-local ones of IPv6
	neighbours []neighbour
	forwards   []forward
}

// state is what the kernel has of ours, or should have.
type state struct {
	devices [2]*device // sallyport.v4 and sallyport.v6; nil where there is none
	routes  []entry    // sorted
}

var deviceNames = [2]string{compile.Device4, compile.Device6}

// wantedDevice is a device as a plan wants it.
func wantedDevice(v *compile.VXLAN) *device {
	d := &device{name: v.Name, kind: "vxlan", up: true, vni: v.VNI, port: v.Port, local: v.Local, mac: v.MAC, mtu: v.MTU,
		addresses:  []netip.Prefix{netip.PrefixFrom(v.Address, v.Address.BitLen())},
		neighbours: make([]neighbour, 0, len(v.Peers)), forwards: make([]forward, 0, len(v.Peers))}
	for _, p := range v.Peers {
		d.neighbours = append(d.neighbours, neighbour{nextHop(p), p.MAC})
		d.forwards = append(d.forwards, forward{p.MAC, p.Node})
	}
	slices.SortFunc(d.neighbours, neighbour.compare)
	slices.SortFunc(d.forwards, forward.compare)
	// One address has one node: of two that share it, the kernel would hold either in turn.
	d.neighbours = slices.CompactFunc(d.neighbours, func(a, b neighbour) bool { return a.compare(b) == 0 })
	d.forwards = slices.CompactFunc(d.forwards, func(a, b forward) bool { return a.compare(b) == 0 })
	return d
}

// nextHop is the address by which routes name a peer. That of IPv6 is link-local, made of the peer's hardware address (RFC 4291,
// appendix A): of any other, the kernel would want to find no route to another interface, such as one of others to the whole pool.
func nextHop(p compile.Peer) netip.Addr {
	if p.Tunnel.Is4() {
		return p.Tunnel
	}
	m := p.MAC
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// differing are the routes of two plans that are not in both.
func differing(was, now []*compile.Route) (gone, come []*compile.Route) {
	i, j := 0, 0
	for i < len(was) && j < len(now) {
		a, b, c := was[i], now[j], 0
		if a != b {
			c = a.CIDR.Compare(b.CIDR)
		}
		switch {
		case c < 0:
			gone = append(gone, a)
			i++
		case c > 0:
			come = append(come, b)
			j++
		default:
			if a != b && *a != *b {
				gone, come = append(gone, a), append(come, b)
			}
			i, j = i+1, j+1
		}
	}
	return append(gone, was[i:]...), append(come, now[j:]...)
}

// hops are the next hops to tunnels of IPv6, by their addresses, of those that routes go to.
func hops(routes []*compile.Route, planned []compile.VXLAN) map[netip.Addr]netip.Addr {
	hops := map[netip.Addr]netip.Addr{}
	for _, r := range routes {
		if r.Device != "" && r.Via.Is6() {
			hops[r.Via] = r.Via
		}
	}
	for i := range planned {
		if len(hops) == 0 {
			break
		}
		for _, p := range planned[i].Peers {
			if _, wanted := hops[p.Tunnel]; wanted {
				hops[p.Tunnel] = nextHop(p)
			}
		}
	}
	return hops
}

// wantedRoutes are the routes of a plan with its devices, given those that the kernel has.
func wantedRoutes(routes []*compile.Route, planned []compile.VXLAN, devices [2]*device) []entry {
	hops := hops(routes, planned)
	out := make([]entry, 0, len(routes))
	for _, r := range routes {
		e := entry{to: r.CIDR, kind: unix.RTN_UNICAST, via: r.Via, src: r.Source, metric: metric4}
		if r.CIDR.Addr().Is6() {
			e.metric = metric6
		}
		if r.Device != "" {
			at := slices.IndexFunc(devices[:], func(d *device) bool { return d != nil && d.up && d.name == r.Device })
			if at >= 0 {
				e.dev = devices[at].index
				if hop, ok := hops[r.Via]; ok {
					e.via = hop
				}
			} else {
				e = unreachable(r.CIDR) // the device could not be made
			}
		}
		if !r.Via.IsValid() {
			e = unreachable(r.CIDR)
		}
		out = append(out, e)
	}
	if !slices.IsSortedFunc(out, entry.compare) {
		slices.SortFunc(out, entry.compare)
	}
	return slices.CompactFunc(out, func(a, b entry) bool { return a.compare(b) == 0 })
}

// difference walks over what is held and what is wanted, both sorted: put is called for what is missing or another, with
// whether there is one of the same key, and drop for what is held and not wanted. It returns how many differ.
func difference[T comparable](held, wanted []T, compare func(a, b T) int, put func(t T, there bool), drop func(T)) int {
	n := 0
	for i, j := 0, 0; i < len(held) || j < len(wanted); {
		c := 0
		switch {
		case i == len(held):
			c = 1
		case j == len(wanted):
			c = -1
		default:
			c = compare(held[i], wanted[j])
		}
		switch {
		case c < 0:
			n++
			drop(held[i])
			i++
		case c > 0:
			n++
			put(wanted[j], false)
			j++
		default:
			if held[i] != wanted[j] {
				n++
				put(wanted[j], true)
			}
			i++
			j++
		}
	}
	return n
}

// count is how many of two sorted slices differ.
func count[T comparable](held, wanted []T, compare func(a, b T) int) int {
	return difference(held, wanted, compare, func(T, bool) {}, func(T) {})
}
