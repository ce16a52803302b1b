package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// TestRandomChanges walks from plan to plan, each made of the one before it, as an agent does: after each the kernel holds that plan
// whole, as it is read back.
func TestRandomChanges(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	h := bigNode(t)
	local := model.Local{Name: "n0", Network: true, Interfaces: prefixes("192.168.0.1/16", "2001:db8::1/64"), Tunnels: addrs("10.0.0.1", "fd00::1:1"),
		Links: []model.Link{{Name: "eth0", MTU: 1500, Addresses: prefixes("192.168.0.1/16", "2001:db8::1/64"), Default4: true, Default6: true}}}
	labtest.Must(t, h.AddAddress("eth0", netip.MustParsePrefix("2001:db8::1/64")), h.Do(func() error {
		d, err := New(Options{NetNS: h.FD()})
		if err != nil {
			return err
		}
		defer d.Close()
		s, plan := new(model.Snapshot), (*compile.Plan)(nil)
		for step := range 60 {
			s = changed(r, s)
			plan = plan.Next(s, local)
			if err := d.Apply(t.Context(), plan.Routes); err != nil {
				return fmt.Errorf("step %d: %w", step, err)
			}
			if r.IntN(3) > 0 { // else the next starts from what this one has noted
				if drift, err := d.Observe(t.Context()); err != nil || drift != 0 {
					return fmt.Errorf("step %d: %d things differ: %w", step, drift, err)
				}
			}
		}
		drift, err := d.Observe(t.Context())
		if drift != 0 {
			return fmt.Errorf("at last: %d things differ", drift)
		}
		return err
	}))
}

// changed is a snapshot of twelve nodes in which a few blocks are others than in the one given, or pools and nodes are.
func changed(r *rand.Rand, was *model.Snapshot) *model.Snapshot {
	s := *was
	if len(s.Nodes) == 0 || r.IntN(5) == 0 {
		modes := []model.Mode{model.ModeAlways, model.ModeAlways, model.ModeCrossSubnet, model.ModeNever}
		s.Pools = nil
		for name, cidr := range map[string]string{"p4": "10.0.0.0/16", "p6": "fd00::/64"} {
			p := &model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), BlockSize: 26, AllowedUses: model.UseWorkload | model.UseTunnel, VXLANMode: modes[r.IntN(len(modes))]}
			if p.CIDR.Addr().Is6() {
				p.BlockSize = 112
			}
			s.Pools = append(s.Pools, p)
		}
		s.Nodes = nil
		for i := range 12 {
			at := []netip.Addr{netip.AddrFrom4([4]byte{192, 168, byte(r.IntN(2)), byte(i + 1)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1))}
			s.Nodes = append(s.Nodes, model.Node{Name: fmt.Sprint("n", i), NetworkAddresses: at, Tunnels: []netip.Addr{blockOf(i, false).Addr().Next(), blockOf(i, true).Addr().Next()}})
		}
		slices.SortFunc(s.Nodes, func(a, b model.Node) int { return strings.Compare(a.Name, b.Name) })
	}
	s.Blocks = slices.DeleteFunc(slices.Clone(was.Blocks), func(*model.Block) bool { return r.IntN(10) == 0 })
	for range r.IntN(4) {
		i, v6 := r.IntN(36), r.IntN(2) == 0
		b := &model.Block{CIDR: blockOf(i, v6), Pool: "p4", Node: fmt.Sprint("n", i%12)}
		if v6 {
			b.Pool = "p6"
		}
		if i >= 12 { // the first are those of tunnels
			b.Node = fmt.Sprint("n", r.IntN(13))
		}
		at, there := slices.BinarySearchFunc(s.Blocks, b, func(a, b *model.Block) int { return a.CIDR.Compare(b.CIDR) })
		if there {
			s.Blocks[at] = b
		} else {
			s.Blocks = slices.Insert(s.Blocks, at, b)
		}
	}
	return &s
}

// blockOf is the i-th block of a family.
func blockOf(i int, v6 bool) netip.Prefix {
	if v6 {
		return netip.MustParsePrefix(fmt.Sprintf("fd00::%x:0/112", i+1))
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 2), byte(i << 6)}), 26)
}
