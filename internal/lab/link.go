package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Port is one end of a link.
type Port struct {
	Host      *Host
	Name      string           // of the interface, at most 15 bytes, unique in its host
	Addresses []netip.Prefix   // unmasked: the address with the length of its subnet
	MTU       int              // in bytes; 0 means 1500
	MAC       net.HardwareAddr // nil: the kernel chooses
}

// Link joins two hosts by a veth pair, sets the addresses and brings both ends up. Each end knows the
// other's addresses as permanent neighbours, so that the first packet need not wait for an answer.
func Link(a, b Port) error {
	pair := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: a.Name, MTU: a.MTU, HardwareAddr: a.MAC},
		PeerName:         b.Name,
		PeerHardwareAddr: b.MAC,
		PeerNamespace:    netlink.NsFd(b.Host.FD()),
	}
	if err := a.Host.route.LinkAdd(pair); err != nil {
		return fmt.Errorf("linking %s to %s: %w", a, b, err)
	}
	for _, end := range []struct{ self, peer Port }{{a, b}, {b, a}} {
		if err := end.self.up(end.peer); err != nil {
			return fmt.Errorf("linking %s to %s: %w", a, b, err)
		}
	}
	return errors.Join(a.Host.awaitCarrier(a.Name), b.Host.awaitCarrier(b.Name))
}

// String names the host and the interface.
func (p Port) String() string { return p.Host.name + "/" + p.Name }

// up configures p, whose interface exists, and brings it up.
func (p Port) up(peer Port) error {
	if p.MTU != 0 {
		if err := p.Host.SetMTU(p.Name, p.MTU); err != nil {
			return err
		}
	}
	if err := p.Host.SetUp(p.Name); err != nil {
		return err
	}
	for _, address := range p.Addresses {
		if err := p.Host.AddAddress(p.Name, address); err != nil {
			return err
		}
	}
	mac, err := peer.Host.MAC(peer.Name)
	if err != nil {
		return err
	}
	for _, address := range peer.Addresses {
		if err := p.Host.AddNeighbour(p.Name, address.Addr(), mac); err != nil {
			return err
		}
	}
	return nil
}

// Bridge makes a bridge with the given addresses out of interfaces that the host has, and brings it up. Its MAC address stays the
// same: the kernel's own choice changes with the ports, so that neighbours would lose their gateway for a while.
func (h *Host) Bridge(name string, addresses []netip.Prefix, members ...string) error {
	mac := net.HardwareAddr{0x02, 5: 0} // locally administered
	_, _ = rand.Read(mac[1:])           // it never fails
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac}}
	if err := h.route.LinkAdd(bridge); err != nil {
		return h.failed("adding bridge", name, err)
	}
	for _, member := range members {
		if err := h.AddToBridge(name, member); err != nil {
			return err
		}
	}
	if err := h.SetUp(name); err != nil {
		return err
	}
	for _, address := range addresses {
		if err := h.AddAddress(name, address); err != nil {
			return err
		}
	}
	return nil
}

// AddToBridge makes an interface that the host has a port of a bridge.
func (h *Host) AddToBridge(bridge, member string) error {
	master, err := h.link(bridge)
	if err != nil {
		return err
	}
	return h.onLink("adding to bridge "+bridge, member, func(l netlink.Link) error { return h.route.LinkSetMaster(l, master) })
}

// LeaveBridge takes an interface out of the bridge that it is a port of. It stays up, and what comes in by it goes nowhere.
func (h *Host) LeaveBridge(member string) error {
	return h.onLink("taking out of its bridge", member, h.route.LinkSetNoMaster)
}

// SetUp brings an interface up.
func (h *Host) SetUp(name string) error {
	return h.onLink("bringing up", name, h.route.LinkSetUp)
}

// SetDown takes an interface down. Its routes go.
func (h *Host) SetDown(name string) error {
	return h.onLink("taking down", name, h.route.LinkSetDown)
}

// SetMTU sets an interface's MTU, in bytes.
func (h *Host) SetMTU(name string, mtu int) error {
	return h.onLink("setting the MTU of", name, func(l netlink.Link) error { return h.route.LinkSetMTU(l, mtu) })
}

// MAC is an interface's hardware address.
func (h *Host) MAC(name string) (net.HardwareAddr, error) {
	link, err := h.link(name)
	if err != nil {
		return nil, err
	}
	return link.Attrs().HardwareAddr, nil
}

// Index is an interface's number in the host, from 1.
func (h *Host) Index(name string) (int, error) {
	link, err := h.link(name)
	if err != nil {
		return 0, err
	}
	return link.Attrs().Index, nil
}

// AddAddress gives an interface that is up an address with the length of its subnet. It can be used at once: there
// is no duplicate address detection.
func (h *Host) AddAddress(name string, address netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(address)}
	if address.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	err := h.onLink("adding "+address.String()+" to", name, func(l netlink.Link) error { return h.route.AddrAdd(l, a) })
	if err != nil {
		return err
	}
	return h.awaitLocal(address.Addr())
}

// RemoveAddress takes an address from an interface.
func (h *Host) RemoveAddress(name string, address netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(address)}
	return h.onLink("removing "+address.String()+" from", name,
		func(l netlink.Link) error { return h.route.AddrDel(l, a) })
}

// AddNeighbour says for good which hardware address an address on an interface's link has.
func (h *Host) AddNeighbour(name string, address netip.Addr, mac net.HardwareAddr) error {
	return h.onLink("adding neighbour "+address.String()+" to", name, func(l netlink.Link) error {
		return h.route.NeighSet(&netlink.Neigh{
			LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac,
		})
	})
}

// Route says where packets to a destination go.
type Route struct {
	To    netip.Prefix // 0.0.0.0/0 and ::/0 are the default routes
	Via   netip.Addr   // the gateway; the zero Addr means that the destination is on the link
	Dev   string       // the interface; empty lets the kernel find it by Via
	Table int          // 0 means the main table
	MTU   int          // in bytes; 0 means that of the interface
}

// AddRoute adds a route. A gateway on a named interface is taken to be on its link.
func (h *Host) AddRoute(r Route) error {
	route := &netlink.Route{Dst: ipNet(r.To.Masked()), Table: r.Table, MTU: r.MTU}
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
	}
	if r.Dev != "" {
		link, err := h.link(r.Dev)
		if err != nil {
			return err
		}
		route.LinkIndex = link.Attrs().Index
		if r.Via.IsValid() {
			route.SetFlag(netlink.FLAG_ONLINK)
		}
	}
	if err := h.route.RouteAdd(route); err != nil {
		return fmt.Errorf("adding route to %s on host %s: %w", r.To, h.name, err)
	}
	return nil
}

// AddRule sends packets that come in by an interface to a routing table, for both families.
func (h *Host) AddRule(inInterface string, table, priority int) error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rule := netlink.NewRule()
		rule.Family, rule.IifName, rule.Table, rule.Priority = family, inInterface, table, priority
		if err := h.route.RuleAdd(rule); err != nil {
			return h.failed("adding a routing rule for", inInterface, err)
		}
	}
	return nil
}

// link finds an interface by its name.
func (h *Host) link(name string) (netlink.Link, error) {
	link, err := h.route.LinkByName(name)
	if err != nil {
		return nil, h.failed("finding", name, err)
	}
	return link, nil
}

// onLink does something to an interface and says what, where it fails.
func (h *Host) onLink(doing, name string, do func(netlink.Link) error) error {
	link, err := h.link(name)
	if err != nil {
		return err
	}
	if err := do(link); err != nil {
		return h.failed(doing, name, err)
	}
	return nil
}

func (h *Host) failed(doing, name string, err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = &FeatureError{"veth and bridge interfaces", "run a kernel with CONFIG_VETH and CONFIG_BRIDGE", err}
	}
	return fmt.Errorf("%s interface %s on host %s: %w", doing, name, h.name, err)
}

// ipNet is a prefix in the form that the netlink library takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
