package convert

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

// snapshot is what a store would make of the manifests.
func snapshot(t rapid.TB, r *Result) *model.Snapshot {
	t.Helper()
	s := &model.Snapshot{}
	for _, m := range r.Manifests {
		text, err := json.Marshal(m.Object)
		if err != nil {
			t.Fatal(err)
		}
		if m.Object["kind"] == "IPPool" {
			var o apiv3.IPPool
			mustDecode(t, text, &o)
			p, err := datastore.Pool(&o)
			if err != nil {
				t.Fatal(err)
			}
			s.Pools = append(s.Pools, p)
			continue
		}
		var o v1alpha1.NATConfiguration
		mustDecode(t, text, &o)
		c, err := datastore.NATConfiguration(&o)
		if err != nil {
			t.Fatal(err)
		}
		s.NATConfigurations = append(s.NATConfigurations, c)
	}
	slices.SortFunc(s.Pools, func(a, b *model.Pool) int { return strings.Compare(a.Name, b.Name) })
	return s
}

func mustDecode(t rapid.TB, text []byte, o any) {
	t.Helper()
	if err := json.Unmarshal(text, o); err != nil {
		t.Fatal(err)
	}
}

// Addresses and ranges of a few small places, so that they meet often, and where something special is.
var places = []string{"10.0.0.0", "10.255.255.0", "169.253.255.0", "169.254.1.0", "172.16.0.0", "192.168.1.0", "198.51.100.0", "224.0.0.0", "fd00::", "2001:db8::", "fe80::", "ff02::"}

func drawAddr(t *rapid.T, label string) netip.Addr {
	b := netip.MustParseAddr(rapid.SampledFrom(places).Draw(t, label+" place")).AsSlice()
	b[len(b)-1] = rapid.Byte().Draw(t, label)
	a, _ := netip.AddrFromSlice(b)
	return a
}

func drawRange(t *rapid.T, label string) netip.Prefix {
	a := drawAddr(t, label)
	bits := a.BitLen() - rapid.SampledFrom([]int{0, 1, 2, 4, 6, 7, 8, 16, 24, a.BitLen()}).Draw(t, label+" host bits")
	return netip.PrefixFrom(a, bits).Masked()
}

// drawNear draws an address, mostly one in or just outside one of the ranges.
func drawNear(t *rapid.T, ranges []netip.Prefix, label string) netip.Addr {
	if len(ranges) == 0 || rapid.IntRange(0, 3).Draw(t, label+" anywhere") == 0 {
		return drawAddr(t, label)
	}
	p := rapid.SampledFrom(ranges).Draw(t, label+" range")
	switch a := p.Addr(); rapid.IntRange(0, 3).Draw(t, label+" where") {
	case 0:
		if a.Prev().IsValid() {
			return a.Prev()
		}
		return a
	case 1:
		return a
	default:
		b := a.AsSlice()
		b[len(b)-1] |= rapid.Byte().Draw(t, label+" host") & byte(0xff>>max(0, p.Bits()-(a.BitLen()-8)))
		a, _ = netip.AddrFromSlice(b)
		return a
	}
}

// masqModel is the rule of ip-masq-agent, as its README has it: in the chain, RETURN for each range of the list and for
// link-local unless it says otherwise, then MASQUERADE.
type masqModel struct {
	list         []netip.Prefix
	link, link6  bool
	ipv6, notSet bool
}

func (m masqModel) masquerades(dst netip.Addr) bool {
	if dst.Is6() && !m.ipv6 {
		return false
	}
	list := slices.Clone(m.list)
	if m.notSet {
		list = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16")}
	}
	if !m.link {
		list = append(list, netip.MustParsePrefix("169.254.0.0/16"))
	}
	if !m.link6 {
		list = append(list, netip.MustParsePrefix("fe80::/10"))
	}
	return !slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(dst) })
}

// known says whether the notes of every conversion say that Sallyport never translates towards the address, or whether
// no packet of a pod to it passes any translation, as with the node's own.
func known(dst netip.Addr) bool {
	return dst.IsLoopback() || dst.Is6() && dst.IsLinkLocalUnicast() || dst.IsMulticast() || dst == netip.MustParseAddr("255.255.255.255")
}

// TestDecidesAsIPMasqAgent compares, for random configurations and flows, what the converted resources decide
// with the agent's own rule. They differ only towards what is never translated, and between pods.
func TestDecidesAsIPMasqAgent(t *testing.T) {
	t.Parallel()
	v := validate.New()
	rapid.Check(t, func(t *rapid.T) {
		m := masqModel{ipv6: rapid.Bool().Draw(t, "ipv6"), notSet: rapid.Bool().Draw(t, "list not set"),
			link: rapid.Bool().Draw(t, "link-local"), link6: rapid.Bool().Draw(t, "link-local of IPv6")}
		var list []any
		for range rapid.IntRange(0, 5).Draw(t, "ranges") {
			if p := drawRange(t, "range"); p.Addr().Is4() || m.ipv6 {
				m.list, list = append(m.list, p), append(list, p.String())
			}
		}
		config := map[string]any{"masqLinkLocal": m.link, "masqLinkLocalIPv6": m.link6}
		if !m.notSet {
			config["nonMasqueradeCIDRs"] = list
		}
		flags := MasqFlags{EnableIPv6: m.ipv6}
		var pods []netip.Prefix
		for range rapid.IntRange(1, 3).Draw(t, "pods") {
			p := drawRange(t, "pods")
			if p.Bits() > 8 && !touchesLinkLocal(p) && (p.Addr().Is4() || m.ipv6) {
				pods, flags.PodCIDRs = append(pods, p), append(flags.PodCIDRs, p.String())
			}
		}
		if len(pods) == 0 {
			t.Skip("no range of pods")
		}
		r, faults := IPMasqAgent([]Document{{Value: any(config)}}, flags)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		for _, o := range r.Manifests {
			if f := v.Create(o.Object); len(f) > 0 {
				t.Fatal(f)
			}
		}
		plan := compile.Compile(snapshot(t, r), model.Local{Name: "me"})
		for range 20 {
			src, dst := drawNear(t, pods, "source"), drawNear(t, slices.Concat(m.list, pods), "destination")
			if src.Is4() != dst.Is4() {
				continue
			}
			in := func(a netip.Addr) bool {
				return slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Contains(a) })
			}
			want := in(src) && !in(dst) && !known(dst) && m.masquerades(dst)
			if want && dst.IsLinkLocalUnicast() && noted(r, "as a whole or not at all") {
				want = false
			}
			if got := plan.Decide(compile.Flow{Source: src, Destination: dst, Protocol: compile.TCP}); (got.Action == compile.Translate) != want {
				t.Fatalf("%s → %s: %v, but the agent masquerades: %t (%+v, pods %v)", src, dst, got, want, m, pods)
			}
			if in(src) && in(dst) && !known(dst) && m.masquerades(dst) && !noted(r, "--pod-cidr") {
				t.Fatalf("%s → %s is translated by the agent between pods, and nothing says that it differs", src, dst)
			}
		}
	})
}

// TestDecidesAsCalico compares random pools and settings with Calico's rule: the source in a pool with natOutgoing,
// the destination in none, the interface if a filter is set; of each field, the node's own setting comes first.
func TestDecidesAsCalico(t *testing.T) {
	t.Parallel()
	v := validate.New()
	rapid.Check(t, func(t *rapid.T) {
		type set struct{ address, filter, ports string }
		draw := func(label string) (set, map[string]any) {
			s := set{
				address: rapid.SampledFrom([]string{"", "192.0.2.1", "192.0.2.2"}).Draw(t, label+" address"),
				filter:  rapid.SampledFrom([]string{"", "eth+", "wan0", "+"}).Draw(t, label+" filter"),
				ports:   rapid.SampledFrom([]string{"", "1024:2047", "4000", "none"}).Draw(t, label+" ports"),
			}
			return s, map[string]any{"natOutgoingAddress": s.address, "iptablesNATOutgoingInterfaceFilter": s.filter, "natPortRange": s.ports}
		}
		object := func(kind, name string, spec map[string]any) Document {
			return Document{Value: any(map[string]any{"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec})}
		}
		all, allSpec := draw("default")
		mine, mineSpec := draw("node")
		docs := []Document{object("FelixConfiguration", "default", allSpec), object("FelixConfiguration", "node.me", mineSpec)}
		var every, nat []netip.Prefix
		for i := range rapid.IntRange(0, 4).Draw(t, "pools") {
			p, out := drawRange(t, "pool"), rapid.Bool().Draw(t, "natOutgoing")
			if touchesLinkLocal(p) {
				continue
			}
			every = append(every, p)
			if out {
				nat = append(nat, p)
			}
			docs = append(docs, object("IPPool", fmt.Sprintf("p%d", i), map[string]any{"cidr": p.String(), "natOutgoing": out, "disabled": true}))
		}
		r, faults := Calico(docs)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		for _, o := range r.Manifests {
			if f := v.Create(o.Object); len(f) > 0 {
				t.Fatal(f)
			}
		}
		s := snapshot(t, r)
		s.Nodes = []model.Node{{Name: "me", Labels: map[string]string{"kubernetes.io/hostname": "me"}}}
		src, dst := drawNear(t, nat, "source"), drawNear(t, every, "destination")
		if src.Is4() != dst.Is4() {
			t.Skip("two families")
		}
		node := rapid.SampledFrom([]string{"me", "other"}).Draw(t, "on")
		eff := all
		if node == "me" {
			eff = set{first(mine.address, all.address), first(mine.filter, all.filter), first(mine.ports, all.ports)}
		}
		out := rapid.SampledFrom([]string{"eth0", "wan0", "wan01", "cni0"}).Draw(t, "interface")
		inAny := func(list []netip.Prefix, a netip.Addr) bool {
			return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		prefix, wild := strings.CutSuffix(eff.filter, "+")
		want := inAny(nat, src) && !inAny(every, dst) && !known(dst) && (eff.filter == "" || out == prefix || wild && strings.HasPrefix(out, prefix))
		got := compile.Compile(s, model.Local{Name: node}).Decide(compile.Flow{Source: src, Destination: dst, Protocol: compile.TCP, OutInterface: out})
		if (got.Action == compile.Translate) != want {
			t.Fatalf("%s → %s by %s on %s: %v, but Calico translates: %t", src, dst, out, node, got, want)
		}
		if !want {
			return
		}
		ports := map[string]string{"": "", "none": "", "1024:2047": "1024-2047", "4000": "4000-4000"}[eff.ports]
		address := "node"
		if src.Is4() && eff.address != "" {
			address = eff.address
		}
		if got.To.Address != address || got.To.Ports != ports {
			t.Fatalf("to %+v; want %s, ports %q", got.To, address, ports)
		}
	})
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// TestSourcePorts compares how ports are picked with Calico's rule for every combination of what decides about it.
func TestSourcePorts(t *testing.T) {
	t.Parallel()
	addresses, features := []string{"", "192.0.2.1", "none"}, []string{"", "MASQFullyRandom=false", "SNATFullyRandom=false,MASQFullyRandom=true", "SNATFullyRandom="}
	for i := range 144 {
		pick := func(of []string) string { s := of[i%len(of)]; i /= len(of); return s }
		a0, a1, f0, f1 := pick(addresses), pick(addresses), pick(features), pick(features)
		r, faults := Calico([]Document{
			{Value: any(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": map[string]any{"name": "default"},
				"spec": map[string]any{"natOutgoingAddress": a0, "featureDetectOverride": f0}})},
			{Value: any(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": map[string]any{"name": "node.me"},
				"spec": map[string]any{"natOutgoingAddress": a1, "featureDetectOverride": f1}})},
		})
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		s := snapshot(t, r)
		s.Nodes = []model.Node{{Name: "me", Labels: map[string]string{"kubernetes.io/hostname": "me"}}}
		for node, eff := range map[string][2]string{"me": {first(a1, a0), first(f1, f0)}, "other": {a0, f0}} {
			want := model.PortsFullyRandom
			if fixed := eff[0] != "" && eff[0] != "none"; fixed && strings.Contains(eff[1], "SNATFullyRandom=false") || !fixed && strings.Contains(eff[1], "MASQFullyRandom=false") {
				want = model.PortsPreserve
			}
			if got := compile.Compile(s, model.Local{Name: node}).NAT.Allocation; got != want {
				t.Errorf("%s: addresses %q %q, features %q %q: %s, want %s", node, a0, a1, f0, f1, got, want)
			}
		}
	}
}
