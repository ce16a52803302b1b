package workload

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// TestBlockThatIsTaken has another node own all blocks but the last, of which the API has not told yet: the node tries each once.
func TestBlockThatIsTaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := poolOf("p", "10.0.0.0/28", 30, model.UseWorkload)
		shared := &api{blocks: map[netip.Prefix]model.Block{}, fail: map[string]int{}}
		for i := range 3 {
			cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(4 * i)}), 30)
			shared.blocks[cidr] = model.Block{CIDR: cidr, Pool: "p", Node: "other"}
		}
		s := newSingle(t, Options{Claims: claims{shared, "n", func(string) *model.Pool { return p }}}, p)
		if a, last := s.add("a"), netip.MustParsePrefix("10.0.0.12/30"); !last.Contains(a) {
			t.Errorf("%s is given out, which is not in %s", a, last)
		}
	})
}

// BenchmarkSetState has a node hear of a change among 10,000 blocks.
func BenchmarkSetState(b *testing.B) {
	p := poolOf("p", "10.0.0.0/8", 26, model.UseWorkload)
	s := &model.Snapshot{Pools: []*model.Pool{p}}
	for i := range 10_000 {
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
		s.Blocks = append(s.Blocks, &model.Block{CIDR: cidr, Pool: "p", Node: fmt.Sprintf("node%05d", i/2)})
	}
	for i := range 5000 {
		s.Nodes = append(s.Nodes, model.Node{Name: fmt.Sprintf("node%05d", i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)})}})
	}
	m := New(Options{Node: "node00007", Claims: claims{}})
	m.SetLinks([]model.Link{{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}}})
	b.ReportAllocs()
	for b.Loop() {
		m.SetState(datastore.State{Snapshot: s, Fresh: true})
	}
}

// TestMachinesKeepTheirAddresses has pools that contain addresses of nodes, and subnets of this node's interfaces.
func TestMachinesKeepTheirAddresses(t *testing.T) {
	t.Parallel()
	here := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/32"), netip.MustParsePrefix("198.51.100.9/28")}
	nodes := []model.Node{
		{Name: "n", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{Name: "other", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.6"), netip.MustParseAddr("203.0.113.1")}},
	}
	for _, tc := range []struct {
		name, pool string
		blockSize  int
		given      []string
		says       string // when that is used up
		very       map[string]string
	}{
		{"blocks with this node's addresses", "192.0.2.0/29", 30, []string{"192.0.2.2", "192.0.2.3"}, "its range overlaps address 192.0.2.0 of this node's interface eth0, ",
			map[string]string{"192.0.2.0": "its block overlaps address 192.0.2.0 of this node's interface eth0", "192.0.2.1": "its block overlaps address 192.0.2.1 of this node",
				"192.0.2.4": "its block overlaps address 192.0.2.6 of Node other"}},
		{"a part of a subnet", "198.51.100.8/30", 30, nil, "pool p: all addresses of this node's blocks (0) are in use or reserved, and no block is free (other nodes own 0); " +
			"its range overlaps subnet 198.51.100.0/28 of this node's interface eth0, and what machines have is not given out: give the pool another range",
			map[string]string{"198.51.100.9": "its block overlaps subnet 198.51.100.0/28 of this node's interface eth0"}},
		{"a subnet, and more", "198.51.100.0/26", 27, nil, "subnet 198.51.100.0/28", nil}, // the other block of 32 has more than the test takes
		{"blocks of one address", "192.0.2.4/30", 32, []string{"192.0.2.4", "192.0.2.5", "192.0.2.7"}, "address 192.0.2.6 of Node other", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSingle(t, Options{})
				pools := []*model.Pool{poolOf("p", tc.pool, tc.blockSize, model.UseWorkload)}
				s.SetState(datastore.State{Snapshot: &model.Snapshot{Pools: pools, Nodes: nodes}, Fresh: true, Conditions: compile.Allocatable(pools)})
				s.SetLinks([]model.Link{{Name: "eth0", Addresses: here}})
				synctest.Wait()
				ask := func(container string, wanted ...netip.Addr) (string, error) {
					out, err := s.Add(t.Context(), &cni.Request{Network: "net", ContainerID: container, Interface: "eth0", Addresses: wanted}, nil, nil)
					if err != nil {
						return "", err
					}
					return out.Addresses[0].String(), nil
				}
				for text, why := range tc.very {
					if a, err := ask("very", netip.MustParseAddr(text)); err == nil || !strings.Contains(err.Error(), why) {
						t.Errorf("%s: %s, %v, want %q", text, a, err, why)
					}
				}
				var given []string
				var a string
				var err error
				for err == nil && len(given) < 40 {
					if a, err = ask(fmt.Sprint("c", len(given))); err == nil {
						given = append(given, a)
					}
				}
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("error %v, want %q", err, tc.says)
				}
				slices.Sort(given)
				if tc.given != nil && !slices.Equal(given, tc.given) {
					t.Errorf("given %v, want %v", given, tc.given)
				}
				for _, a := range given {
					if here[1].Contains(netip.MustParseAddr(a)) || a < "198.51.100.32" && tc.blockSize == 27 {
						t.Errorf("%s is given out", a)
					}
				}
			})
		})
	}
}

// TestSubnetThatComesLater has a node come into the subnet of which it has a block: workloads keep their addresses, and no other one gets any.
func TestSubnetThatComesLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t, Options{}, poolOf("p", "10.0.0.0/24", 26, model.UseWorkload))
		first := s.add("a")
		link := []model.Link{{Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(first.Next(), 26)}}}
		s.SetLinks(link)
		if next := s.add("b"); link[0].Addresses[0].Contains(next) {
			t.Errorf("%s is given out, in the subnet %s", next, link[0].Addresses[0])
		}
		if u := s.Counts(); u.Workloads != 2 || len(u.Blocks) != 2 {
			t.Errorf("%+v", u)
		}
	})
}

// TestNothingBeforeInterfacesAreKnown: without them, a workload could get the address of a neighbour of the node.
func TestNothingBeforeInterfacesAreKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSingle(t, Options{}, poolOf("p", "10.0.0.0/24", 26, model.UseWorkload))
		s.near = nil
		s.SetState(s.state)
		if _, err := s.Add(t.Context(), &cni.Request{Network: "net", ContainerID: "a", Interface: "eth0"}, nil, nil); err == nil || !strings.Contains(err.Error(), "interfaces were not read yet") {
			t.Error(err)
		}
		s.SetLinks(nil)
		s.add("a")
	})
}

// TestReservedFollows changes one thing after the other of what decides which addresses are reserved: what was found out before is
// not taken for what holds now.
func TestReservedFollows(t *testing.T) {
	t.Parallel()
	m := New(Options{Node: "n", Claims: claims{}})
	s := &model.Snapshot{}
	for _, step := range []struct {
		name   string
		change func(*model.Snapshot)
		want   string
		label  string
	}{
		{"a node", func(s *model.Snapshot) {
			s.Nodes = []model.Node{{Name: "n", Labels: map[string]string{"zone": "a"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
		}, "[]", "a"},
		{"a pool", func(s *model.Snapshot) {
			s.Pools = []*model.Pool{poolOf("p", "192.0.2.0/24", 30, model.UseWorkload)}
		}, "[192.0.2.1/32]", "a"},
		{"a block", func(s *model.Snapshot) {
			s.Blocks = []*model.Block{{CIDR: netip.MustParsePrefix("192.0.2.0/30"), Pool: "p", Node: "n"}}
		}, "[192.0.2.1/32]", "a"},
		{"a reservation", func(s *model.Snapshot) {
			s.Reservations = []model.Reservation{{Name: "r", CIDRs: []netip.Prefix{netip.MustParsePrefix("192.0.2.8/30")}}}
		}, "[192.0.2.1/32 192.0.2.8/30]", "a"},
		{"the node, with another label and address", func(s *model.Snapshot) {
			s.Nodes = []model.Node{{Name: "n", Labels: map[string]string{"zone": "b"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}}
		}, "[192.0.2.2/32 192.0.2.8/30]", "b"},
	} {
		next := *s
		s = &next
		step.change(s)
		m.SetState(datastore.State{Snapshot: s, Fresh: true})
		if got := fmt.Sprint(m.declared.reserved.Prefixes()); got != step.want || m.declared.labels["zone"] != step.label || len(m.declared.blocks) != len(s.Blocks) {
			t.Errorf("%s: %s are reserved, and the labels are %v; want %s, %s", step.name, got, m.declared.labels, step.want, step.label)
		}
	}
	m.SetLinks([]model.Link{{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.17/30")}}})
	if got, want := fmt.Sprint(m.declared.reserved.Prefixes()), "[192.0.2.2/32 192.0.2.8/30 192.0.2.16/30]"; got != want {
		t.Errorf("an interface: %s are reserved, want %s", got, want)
	}
}
