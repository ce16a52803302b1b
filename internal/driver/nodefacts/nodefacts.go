// Package nodefacts reads what diagnosis must know of a node: its interfaces, routes and forwarding
// settings, and what its connection tracking counts. It only reads, in the network namespace of the
// calling thread, and each reading costs a bounded amount of work.
package nodefacts

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
)

const (
	// maxRoutes bounds how many routes are looked at, and maxRoutesEach how many are kept of an interface:
	// a node may hold the routes of the whole internet.
	maxRoutes     = 50_000
	maxRoutesEach = 256
	// maxTries bounds how often a reading is begun anew because something changed meanwhile: on a busy node pods,
	// and so interfaces, come and go.
	maxTries = 10
	// patience bounds one answer of the kernel's.
	patience = 5 * time.Second
)

// sysctls is where the settings of the network namespace are.
const sysctls = "/proc/sys/net"

// Node reads interfaces, routes and settings, and of the given addresses whether they are local; the zero
// Addr is passed over.
func Node(addresses ...netip.Addr) (*diagnose.Node, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink: %w", err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(patience); err != nil {
		return nil, fmt.Errorf("bounding rtnetlink: %w", err)
	}
	n, err := readNetwork(h)
	for try := 1; errors.Is(err, netlink.ErrDumpInterrupted) && try < maxTries; try++ {
		n, err = readNetwork(h)
	}
	if err != nil {
		return nil, err
	}
	for _, a := range addresses {
		if !a.IsValid() {
			continue
		}
		if local, known := isLocal(h, a); known {
			n.Local[a] = local
		}
	}
	return n, readForwarding(n)
}

// readNetwork reads interfaces, addresses and routes; they may change meanwhile.
func readNetwork(h *netlink.Handle) (*diagnose.Node, error) {
	n := &diagnose.Node{Local: map[netip.Addr]bool{}}
	index, err := readLinks(h, n)
	if err != nil {
		return nil, err
	}
	if err := readAddresses(h, n, index); err != nil {
		return nil, err
	}
	return n, readRoutes(h, n, index)
}

// readLinks lists the interfaces that are up, and returns by their numbers where they are in the list.
func readLinks(h *netlink.Handle, n *diagnose.Node) (map[int]int, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	index := map[int]int{}
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 {
			continue
		}
		index[a.Index] = len(n.Interfaces)
		// The library calls what has no kind of virtual links "device".
		n.Interfaces = append(n.Interfaces, diagnose.Interface{Name: a.Name, Loopback: a.Flags&net.FlagLoopback != 0, Physical: l.Type() == "device"})
	}
	return index, nil
}

func readAddresses(h *netlink.Handle, n *diagnose.Node, index map[int]int) error {
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		p, ok := prefixOf(a.IPNet)
		if k, up := index[a.LinkIndex]; ok && up && !p.Addr().IsLinkLocalUnicast() {
			n.Interfaces[k].Addresses = append(n.Interfaces[k].Addresses, p)
		}
	}
	return nil
}

func readRoutes(h *netlink.Handle, n *diagnose.Node, index map[int]int) error {
	for _, f := range []struct {
		family int
		any    netip.Prefix
	}{{netlink.FAMILY_V4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, {netlink.FAMILY_V6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)}} {
		seen := 0
		err := h.RouteListFilteredIter(f.family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			seen++
			to, ok := prefixOf(r.Dst)
			if r.Dst == nil {
				to, ok = f.any, true
			}
			if !ok || r.Type != unix.RTN_UNICAST || to.Addr().IsLinkLocalUnicast() || to.Addr().IsMulticast() {
				return seen < maxRoutes
			}
			hops := []hop{{r.LinkIndex, r.Gw, r.Via}}
			for _, h := range r.MultiPath {
				hops = append(hops, hop{h.LinkIndex, h.Gw, h.Via})
			}
			for _, h := range hops {
				if k, up := index[h.link]; up && (len(n.Interfaces[k].Routes) < maxRoutesEach || to.Bits() == 0) {
					h.add(&n.Interfaces[k], to)
				}
			}
			return seen < maxRoutes
		})
		// A dump that was interrupted has perhaps missed a route: the next one sees it. Where routes never rest,
		// it is better than none.
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EAFNOSUPPORT) {
			return fmt.Errorf("listing routes: %w", err)
		}
	}
	return nil
}

// hop is one way that a route goes.
type hop struct {
	link    int
	gateway net.IP
	via     netlink.Destination // a gateway of the other family
}

// add adds a route to the interface by which it goes. A gateway that is an address of that interface is none:
// some networks for pods write routes so.
func (h hop) add(i *diagnose.Interface, to netip.Prefix) {
	i.Routes = append(i.Routes, to)
	gateway, _ := netip.AddrFromSlice(h.gateway)
	own := slices.ContainsFunc(i.Addresses, func(a netip.Prefix) bool { return a.Addr() == gateway.Unmap() })
	if h.via == nil && (h.gateway == nil || own) {
		i.OnLink = append(i.OnLink, to)
	}
}

// isLocal says whether the kernel delivers packets to an address on this node: by an interface's address, or
// by a local route. It is not known where the kernel did not answer; an error that it answers with, such as "network
// is unreachable", is a no.
func isLocal(h *netlink.Handle, a netip.Addr) (local, known bool) {
	routes, err := h.RouteGet(a.AsSlice())
	for _, silent := range []unix.Errno{unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, silent) {
			return false, false
		}
	}
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, true
}

func readForwarding(n *diagnose.Node) error {
	var err error
	if n.ForwardIPv4, err = isOn("ipv4/ip_forward"); err != nil {
		return err
	}
	n.ForwardIPv6, err = isOn("ipv6/conf/all/forwarding")
	if errors.Is(err, os.ErrNotExist) {
		n.NoIPv6 = true
	} else if err != nil {
		return err
	}
	for i := range n.Interfaces {
		f := &n.Interfaces[i]
		f.ForwardIPv4, err = isOn("ipv4/conf/" + f.Name + "/forwarding")
		if errors.Is(err, os.ErrNotExist) {
			f.ForwardIPv4 = true // the interface has gone since: nothing to complain of
		} else if err != nil {
			return err
		}
		f.ForwardIPv6, err = isOn("ipv6/conf/" + f.Name + "/force_forwarding")
		if err != nil && !errors.Is(err, os.ErrNotExist) { // older kernels have no such switch
			return err
		}
	}
	return nil
}

func isOn(sysctl string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(sysctls, sysctl))
	if err != nil {
		return false, fmt.Errorf("reading a sysctl: %w", err)
	}
	return strings.TrimSpace(string(b)) != "0", nil
}

// prefixOf takes over an address with its mask.
func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if !ok || size == 0 {
		return netip.Prefix{}, false
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, bits), a.BitLen() == size
}
