package ipam

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	pools := []Pool{pool("plain", "10.0.0.0/24", 26), pool("six", "fd00::/112", 122), pool("manual", "10.1.0.0/24", 26), pool("tunnel", "10.2.0.0/24", 26),
		pool("zone", "10.3.0.0/24", 26), pool("team", "10.4.0.0/24", 26), pool("off", "10.5.0.0/24", 26), pool("broken", "10.6.0.0/24", 26)}
	pools[2].ManualAssignment = true
	pools[3].AllowedUses = model.UseTunnel
	pools[4].NodeSelector = "zone == 'a'"
	pools[5].NamespaceSelector = "team == 'x'"
	pools[6].Why = "the pool is disabled: it gives out no new address"
	pools[7].NodeSelector = "zone =="
	in := func(w Wish) Wish {
		w.Node, w.Use = "n", cmp.Or(w.Use, model.UseWorkload)
		return w
	}
	a, x := map[string]string{"zone": "a"}, map[string]string{"team": "x"}
	for _, tc := range []struct {
		name  string
		wish  Wish
		v6    bool
		serve string
		why   string // part of a refusal
	}{
		{"any", in(Wish{Namespace: "ns"}), false, "plain", "pool manual: its assignmentMode is Manual, so that it must be named"},
		{"v6", in(Wish{}), true, "six", ""},
		{"node", in(Wish{NodeLabels: a, Namespace: "ns"}), false, "zone plain", "pool team: its namespaceSelector does not select namespace ns"},
		{"namespace", in(Wish{Namespace: "ns", NamespaceLabels: x}), false, "team plain", "pool zone: its nodeSelector does not select node n"},
		{"no namespace", in(Wish{}), false, "plain", "pool team: its namespaceSelector does not select a workload that has no namespace"},
		{"disabled", in(Wish{}), false, "plain", "pool off: the pool is disabled"},
		{"tunnel", in(Wish{Use: model.UseTunnel}), false, "tunnel", "pool plain: its allowedUses has no Tunnel"},
		{"a named manual one", in(Wish{Pools4: []string{"manual"}}), false, "manual", "pool plain: is not among the pools that are named"},
		{"in the order of the names", in(Wish{Pools4: []string{"manual", "10.0.0.0/24"}}), false, "manual plain", ""},
		{"never widened", in(Wish{Pools4: []string{"zone", "tunnel"}}), false, "", "pool zone: its nodeSelector does not select node n"},
		{"none of that name", in(Wish{Pools4: []string{"gone"}}), false, "", "pool gone: no pool of this name or CIDR exists"},
		{"one of the other family", in(Wish{Pools4: []string{"fd00::/112"}}), false, "", "is not among"},
		{"another form of the CIDR", in(Wish{Pools6: []string{"FD00:0::/112"}}), true, "six", ""},
		{"a selector that is none", in(Wish{}), false, "plain", "pool broken: nodeSelector is not a selector"},
		{"no pool is named", in(Wish{Pools4: []string{}}), false, "", "is not among"},
	} {
		serve, refused := Choose(pools, tc.v6, &tc.wish)
		var names []string
		for _, p := range serve {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != tc.serve {
			t.Errorf("%s: %q serve, want %q", tc.name, got, tc.serve)
		}
		if tc.why != "" && !slices.ContainsFunc(refused, func(r Refusal) bool { return strings.Contains(r.String(), tc.why) }) {
			t.Errorf("%s: refused are %v, want %q among them", tc.name, refused, tc.why)
		}
	}
}

// small is a node with the one block of a pool of four addresses, of which one is reserved.
func small(t *testing.T) (*Space, *Cluster) {
	t.Helper()
	var b netipx.IPSetBuilder
	b.Add(netip.MustParseAddr("10.0.0.3"))
	reserved, err := b.IPSet()
	if err != nil {
		t.Fatal(err)
	}
	cidr := netip.MustParsePrefix("10.0.0.0/30")
	s := NewSpace(rand.New(rand.NewPCG(1, 2)).Uint64)
	s.Own(Block{cidr, "p"})
	return s, &Cluster{Pools: []Pool{pool("p", "10.0.0.0/30", 30)}, Owners: maps.All(map[netip.Prefix]string{cidr: "n"}), Reserved: reserved}
}

func request(workload string, addresses ...string) *Request {
	r := &Request{Workload: workload, Pod: "ns/" + workload, Wish: Wish{Use: model.UseWorkload, Node: "n"}, V4: true}
	for _, a := range addresses {
		r.Addresses = append(r.Addresses, netip.MustParseAddr(a))
	}
	return r
}

// TestExhaustion takes every address, gives them back one after the other, and asks again before they have cooled down.
func TestExhaustion(t *testing.T) {
	t.Parallel()
	s, c := small(t)
	now := time.Unix(1e9, 0)
	var all []netip.Addr
	for _, w := range []string{"a", "b", "c"} {
		got, err := s.Assign(now, request(w), c)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, got.Addresses...)
	}
	const want = "no IPv4 address: pool p: all addresses of this node's blocks (1) are in use or reserved, and no block is free (other nodes own 0)"
	if _, err := s.Assign(now, request("d"), c); err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	for i, w := range []string{"c", "a"} {
		s.Release(all[[]int{2, 0}[i]], w, "ns/"+w, now.Add(time.Duration(i)*time.Second))
	}
	s.Release(all[1], "another", "", now) // it is b's
	for i, w := range []string{"e", "f"} {
		got, err := s.Assign(now.Add(30*time.Second), request(w), c)
		if err != nil || got.Addresses[0] != all[[]int{2, 0}[i]] {
			t.Errorf("%s got %v, %v; want what was given back first", w, got.Addresses, err)
		}
	}
	if n := s.Shortened(); n != 2 {
		t.Errorf("%d had not cooled down, want 2", n)
	}
	if _, err := s.Assign(now, request("g"), c); err == nil {
		t.Error("an address was given that another workload has")
	}
}

// TestVeryAddress asks for addresses by name.
func TestVeryAddress(t *testing.T) {
	t.Parallel()
	s, c := small(t)
	now := time.Unix(1e9, 0)
	c.Pools = append(c.Pools, pool("q", "10.1.0.0/24", 26), pool("off", "10.2.0.0/24", 26))
	c.Pools[1].ManualAssignment = true
	c.Pools[2].Why = "the pool is disabled"
	c.Owners = maps.All(map[netip.Prefix]string{netip.MustParsePrefix("10.0.0.0/30"): "n", netip.MustParsePrefix("10.1.0.0/26"): "other"})
	s.Use(netip.MustParseAddr("10.0.0.1"), "a")
	s.Use(netip.MustParseAddr("10.0.0.2"), "b")
	s.Release(netip.MustParseAddr("10.0.0.2"), "b", "ns/b", now)
	for _, tc := range []struct{ address, want string }{
		{"10.0.0.1", "address 10.0.0.1 cannot be given: workload a has it"},
		{"10.0.0.3", "address 10.0.0.3 cannot be given: an IPReservation holds it"},
		{"10.1.0.7", "address 10.1.0.7 cannot be given: block 10.1.0.0/26 belongs to node other"},
		{"10.1.0.77", "claim 10.1.0.64/26"}, // named, so that Manual is satisfied
		{"10.2.0.1", "address 10.2.0.1 cannot be given: pool off: the pool is disabled"},
		{"192.0.2.1", "address 192.0.2.1 cannot be given: no pool holds it"},
	} {
		got, err := s.Assign(now, request("x", tc.address), c)
		said := "claim " + got.Claim.CIDR.String()
		if err != nil {
			said = err.Error()
		}
		if said != tc.want {
			t.Errorf("%s: %s, want %s", tc.address, said, tc.want)
		}
	}
	for i, w := range []string{"b", "c"} { // its own need not cool down; that of another pod is counted
		got, err := s.Assign(now, request(w, "10.0.0.2"), c)
		if err != nil || len(got.Addresses) != 1 || s.Shortened() != uint64(i) {
			t.Errorf("%s got %v, %v; %d had not cooled down", w, got, err, s.Shortened())
		}
		s.Release(netip.MustParseAddr("10.0.0.2"), w, "ns/"+w, now)
	}
}

// TestSpare gives blocks back only when nothing in them is in use or cools down.
func TestSpare(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	s := NewSpace(rand.New(rand.NewPCG(1, 2)).Uint64)
	for _, cidr := range []string{"10.0.0.0/30", "10.0.0.4/30", "fd00::/126"} {
		s.Own(Block{netip.MustParsePrefix(cidr), "p"})
	}
	last := netip.MustParseAddr("10.0.0.5")
	s.Use(last, "a")
	spare := func(serves bool) (out []string) {
		for _, b := range s.Spare(now, func(string) bool { return serves }) {
			out = append(out, b.CIDR.String())
		}
		return out
	}
	if got := spare(true); !slices.Equal(got, []string{"10.0.0.0/30"}) {
		t.Errorf("%v go back", got)
	}
	if got := spare(false); !slices.Equal(got, []string{"10.0.0.0/30", "fd00::/126"}) {
		t.Errorf("%v of a pool that does not serve go back", got)
	}
	s.Release(last, "a", "ns/a", now)
	if got := spare(false); slices.Contains(got, "10.0.0.4/30") {
		t.Errorf("%v go back while an address cools down", got)
	}
	now = now.Add(CoolDown)
	if got := spare(false); len(got) != 3 {
		t.Errorf("%v go back at last", got)
	}
}

// TestFreeBlock finds blocks in pools of which much is owned or reserved, and not always the same.
func TestFreeBlock(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2)).Uint64
	set := func(prefixes ...string) *netipx.IPSet {
		var b netipx.IPSetBuilder
		for _, p := range prefixes {
			b.AddPrefix(netip.MustParsePrefix(p))
		}
		s, err := b.IPSet()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	seen := map[netip.Prefix]bool{}
	big := pool("p", "fd00::/16", 122).Pool
	for range 50 {
		b, ok := freeBlock(big, set("fd00::/17"), set(), rnd)
		if !ok || b.Bits() != 122 || b.Masked() != b || !netip.MustParsePrefix("fd00:8000::/17").Contains(b.Addr()) {
			t.Fatalf("%v, %v", b, ok)
		}
		seen[b] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different blocks in 50", len(seen))
	}
	small := pool("p", "10.0.0.0/29", 30).Pool
	if b, ok := freeBlock(small, set("10.0.0.0/30"), set("10.0.0.4/32", "10.0.0.6/31"), rnd); !ok || b.String() != "10.0.0.4/30" {
		t.Errorf("%v, %v, want the block of the one address that is left", b, ok)
	}
	if b, ok := freeBlock(small, set("10.0.0.0/30"), set("10.0.0.4/30"), rnd); ok {
		t.Errorf("%v is reserved", b)
	}
}
