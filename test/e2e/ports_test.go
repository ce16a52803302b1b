package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// portsRig is a rig with one pool per family and the given ports. The pools use VXLAN if asked to.
func portsRig(t *testing.T, ports *model.PortRange, allocation model.PortAllocation, vxlan bool) (*rig, *compile.Plan) {
	t.Helper()
	r := newRig(t)
	a, b := pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat")
	if vxlan {
		a.VXLANMode = model.ModeAlways
	}
	cfg := &model.NATConfiguration{PortRange: ports, PortAllocation: &allocation}
	return r, r.program(t, snapshot(cfg, a, b))
}

// fromPods is one connection from each of n pods, all with one source port, to one server.
func fromPods(r *rig, family int, proto compile.Protocol, n int, sport uint16) []probe {
	pods := []string{"10.0.1.0", "fd00::"}
	server := []string{"198.51.100.10", "2001:db8:100::10"}
	src := netip.MustParseAddr(pods[family])
	var list []probe
	for range n {
		src = src.Next()
		list = append(list, probe{sport: sport, in: r.pod[0], Flow: compile.Flow{
			Source: src, Destination: netip.MustParseAddr(server[family]),
			Protocol: proto, DestinationPort: 443, OutInterface: "eth0",
		}})
	}
	return list
}

// TestPortsRunOut opens as many connections as a range has ports, and then more: all of the range is
// used, each port once, and what finds none is lost and never sent with another port or the pod's address.
func TestPortsRunOut(t *testing.T) {
	t.Parallel()
	for _, allocation := range []model.PortAllocation{model.PortsFullyRandom, model.PortsRandom, model.PortsPreserve} {
		t.Run(string(allocation), func(t *testing.T) {
			t.Parallel()
			r, plan := portsRig(t, &model.PortRange{First: 40000, Last: 40015}, allocation, false)
			var ps probes
			for family := range 2 {
				for _, proto := range r.transports(t) {
					list := fromPods(r, family, proto, 20, 40007)
					used := map[uint16]bool{}
					for _, seen := range r.try(t, &ps, plan, list[:16]) {
						if used[seen.sport] {
							t.Errorf("%s: port %d is used twice", protocolName(proto), seen.sport)
						}
						used[seen.sport] = true
					}
					expectLost(t, r, &ps, list[16:])
				}
			}
		})
	}
}

// expectLost makes sure that the first packets of the probes do not come out. A packet of no pool is
// sent after them: once it is seen, so would they have been.
func expectLost(t *testing.T, r *rig, ps *probes, list []probe) {
	t.Helper()
	lost := map[uint32]bool{}
	for _, p := range list {
		ps.lastID++
		lost[ps.lastID] = true
		send(t, p.in, packet{src: p.Source, dst: p.Destination, proto: p.Protocol, sport: p.sport, dport: p.DestinationPort, id: ps.lastID})
	}
	ps.lastID++
	last := ps.lastID
	send(t, r.pod[0], packet{
		src: netip.MustParseAddr("172.16.0.1"), dst: netip.MustParseAddr("198.51.100.10"), proto: compile.UDP,
		sport: uint16(last), dport: 9, id: last,
	})
	arrived := false
	err := watch(r.taps(), patience, func(at *tap, ip []byte) (bool, error) {
		p, err := parse(ip)
		if err == nil && lost[p.id] {
			return true, fmt.Errorf("a connection without a port came out by %s: %v", at.name, p)
		}
		arrived = arrived || err == nil && p.id == last
		return arrived, nil
	})
	if err != nil || !arrived {
		t.Errorf("after the ports ran out: %v (last packet seen: %t)", err, arrived)
	}
}

// TestPreserve makes sure that Preserve keeps a port that is free and in the range, and only such.
func TestPreserve(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		ports *model.PortRange
		sport uint16
		kept  bool
	}{
		{"without a range", nil, 33333, true},
		{"in the range", &model.PortRange{First: 33000, Last: 34000}, 33333, true},
		{"first of the range", &model.PortRange{First: 33333, Last: 34000}, 33333, true},
		{"last of the range", &model.PortRange{First: 33000, Last: 33333}, 33333, true},
		{"outside the range", &model.PortRange{First: 40000, Last: 50000}, 33333, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, plan := portsRig(t, c.ports, model.PortsPreserve, false)
			var ps probes
			for family := range 2 {
				for _, proto := range r.transports(t) {
					seen := r.try(t, &ps, plan, fromPods(r, family, proto, 2, c.sport))
					if kept := seen[0].sport == c.sport; kept != c.kept {
						t.Errorf("%s: port %d became %d", protocolName(proto), c.sport, seen[0].sport)
					}
					if seen[1].sport == seen[0].sport {
						t.Errorf("%s: two connections have port %d", protocolName(proto), seen[0].sport)
					}
				}
			}
		})
	}
}

// TestRandomPorts makes sure that the random allocations do not keep ports, with and without a range.
func TestRandomPorts(t *testing.T) {
	t.Parallel()
	for _, allocation := range []model.PortAllocation{model.PortsFullyRandom, model.PortsRandom} {
		for _, ports := range []*model.PortRange{nil, {First: 20000, Last: 60000}} {
			t.Run(fmt.Sprintf("%s, range %v", allocation, ports), func(t *testing.T) {
				t.Parallel()
				r, plan := portsRig(t, ports, allocation, false)
				var ps probes
				const n = 100
				for family := range 2 {
					for _, proto := range r.transports(t) {
						kept, different := 0, map[uint16]bool{}
						for _, seen := range r.try(t, &ps, plan, fromPods(r, family, proto, n, 33333)) {
							different[seen.sport] = true
							if seen.sport == 33333 {
								kept++
							}
						}
						if kept > 1 || len(different) < n {
							t.Errorf("%s: of %d connections %d kept their port, %d ports were used", protocolName(proto), n, kept, len(different))
						}
					}
				}
			})
		}
	}
}

// TestVXLANPort makes sure that no UDP connection leaves from the VXLAN port while a pool uses VXLAN,
// and that TCP and SCTP may.
func TestVXLANPort(t *testing.T) {
	t.Parallel()
	for _, ports := range []*model.PortRange{nil, {First: 4780, Last: 4795}, {First: 4789, Last: 5000}, {First: 4000, Last: 4789}} {
		t.Run(fmt.Sprint(ports), func(t *testing.T) {
			t.Parallel()
			r, plan := portsRig(t, ports, model.PortsPreserve, true)
			var ps probes
			for family := range 2 {
				for _, proto := range r.transports(t) {
					for i, seen := range r.try(t, &ps, plan, fromPods(r, family, proto, 9, model.VXLANPort)) {
						if is := seen.sport == model.VXLANPort; is != (i == 0 && proto != compile.UDP) {
							t.Errorf("%s: connection %d left from port %d", protocolName(proto), i, seen.sport)
						}
					}
				}
			}
		})
	}
}
