package diagnose

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, prefix(s))
	}
	return out
}

func pool(name, cidr string, change ...func(*model.Pool)) *model.Pool {
	p := &model.Pool{Name: name, CIDR: prefix(cidr), NATOutgoing: true, AllowedUses: model.UseWorkload | model.UseTunnel}
	for _, c := range change {
		c(p)
	}
	return p
}

// node is a node on which nothing is wrong: an uplink, a bridge that carries the pods' range, and the
// address that a tunnel has.
func node() *Node {
	return &Node{
		Interfaces: []Interface{
			{Name: "lo", Loopback: true, Physical: true, Addresses: prefixes("127.0.0.1/8", "::1/128")},
			{Name: "eth0", Physical: true, ForwardIPv4: true, Addresses: prefixes("192.0.2.10/24", "2001:db8::10/64"),
				Routes: prefixes("0.0.0.0/0", "192.0.2.0/24", "::/0", "2001:db8::/64")},
			{Name: "cni0", ForwardIPv4: true, Addresses: prefixes("10.244.1.1/24", "fd00:1::1/64"), Routes: prefixes("10.244.1.0/24", "203.0.113.0/26", "fd00:1::/64"),
				OnLink: prefixes("10.244.1.0/24", "203.0.113.0/26", "fd00:1::/64")},
			{Name: "flannel.1", ForwardIPv4: true, Addresses: prefixes("10.244.1.0/32"), Routes: prefixes("10.244.2.0/24")},
		},
		ForwardIPv4: true, ForwardIPv6: true,
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	disabled := func(p *model.Pool) { p.Disabled = true }
	noNAT := func(p *model.Pool) { p.NATOutgoing = false }
	forServices := func(p *model.Pool) { p.AllowedUses = model.UseLoadBalancer }
	both := []*model.Pool{pool("pods", "10.244.0.0/16"), pool("pods6", "fd00::/16")}
	to := []model.NATConfiguration{{Name: "fixed", NodeSelector: "all()", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.7")}}}
	tests := []struct {
		name   string
		pools  []*model.Pool
		config []model.NATConfiguration
		change func(*Facts)
		want   string // each problem as kind and object and field, joined
	}{
		{name: "nothing wrong", pools: both},
		{name: "the node's subnet", pools: append(both, pool("lan", "192.0.0.0/16")), want: "PoolOverlapsSubnet IPPool lan spec.cidr"},
		{name: "a part of it", pools: []*model.Pool{pool("lan", "192.0.2.64/26")}, want: "PoolOverlapsSubnet IPPool lan spec.cidr"},
		{name: "IPv6", pools: []*model.Pool{pool("lan", "2001:db8::/32")}, want: "PoolOverlapsSubnet IPPool lan spec.cidr"},
		{name: "not translated", pools: []*model.Pool{pool("lan", "192.0.2.0/24", noNAT)}, want: "PoolOverlapsSubnet IPPool lan spec.cidr"},
		{name: "exempted on purpose", pools: []*model.Pool{pool("lan", "192.0.0.0/16", disabled, noNAT)}},
		{name: "disabled, but translated", pools: []*model.Pool{pool("lan", "192.0.0.0/16", disabled)}, want: "PoolOverlapsSubnet IPPool lan spec.cidr"},
		{name: "for services alone", pools: []*model.Pool{pool("lan", "192.0.2.128/25", forServices)}},
		{name: "an uplink that is virtual", pools: []*model.Pool{pool("lan", "192.0.2.0/24")},
			change: func(f *Facts) { f.Node.Interfaces[1].Physical = false }, want: "PoolOverlapsSubnet IPPool lan spec.cidr"},
		{name: "a second network card", pools: both, change: func(f *Facts) {
			f.Node.Interfaces = append(f.Node.Interfaces, Interface{Name: "eth1", Physical: true, ForwardIPv4: true, Addresses: prefixes("10.244.9.9/24")})
		}, want: "PoolOverlapsSubnet IPPool pods spec.cidr"},
		{name: "an address that is there", pools: both, config: to, change: func(f *Facts) {
			f.Node.Local = map[netip.Addr]bool{netip.MustParseAddr("198.51.100.7"): true}
		}},
		{name: "an address that is not there", pools: both, config: to, change: func(f *Facts) {
			f.Node.Local = map[netip.Addr]bool{netip.MustParseAddr("198.51.100.7"): false}
		}, want: "AddressMissing NATConfiguration fixed spec.addresses"},
		{name: "an address that was not asked for", pools: both, config: to},
		{name: "no forwarding", pools: both, change: func(f *Facts) { f.Node.ForwardIPv4, f.Node.ForwardIPv6 = false, false },
			want: "ForwardingOff this node net.ipv4.ip_forward; ForwardingOff this node net.ipv6.conf.all.forwarding"},
		{name: "no forwarding, no pods", pools: []*model.Pool{pool("corporate", "10.0.0.0/8", disabled, noNAT)},
			change: func(f *Facts) { f.Node.ForwardIPv4, f.Node.ForwardIPv6 = false, false }},
		{name: "no IPv6 in the kernel", pools: both, change: func(f *Facts) { f.Node.ForwardIPv6, f.Node.NoIPv6 = false, true }},
		{name: "IPv6 by some interfaces alone", pools: both, change: func(f *Facts) { f.Node.ForwardIPv6, f.Node.Interfaces[1].ForwardIPv6 = false, true },
			want: "ForwardingOff interface cni0 net.ipv6.conf.cni0.force_forwarding"},
		{name: "IPv6 by all that matter", pools: both, change: func(f *Facts) {
			f.Node.ForwardIPv6, f.Node.Interfaces[1].ForwardIPv6, f.Node.Interfaces[2].ForwardIPv6 = false, true, true
		}},
		{name: "no forwarding by the uplink", pools: both, change: func(f *Facts) { f.Node.Interfaces[1].ForwardIPv4 = false },
			want: "ForwardingOff interface eth0 net.ipv4.conf.eth0.forwarding"},
		{name: "no forwarding by the tunnel", pools: both, change: func(f *Facts) { f.Node.Interfaces[3].ForwardIPv4 = false },
			want: "ForwardingOff interface flannel.1 net.ipv4.conf.flannel/1.forwarding"},
		{name: "no forwarding where no pods are", pools: both, change: func(f *Facts) {
			f.Node.Interfaces = append(f.Node.Interfaces, Interface{Name: "mgmt", Addresses: prefixes("172.16.0.1/24"), Routes: prefixes("10.0.0.0/8")})
		}},
		{name: "a full table", pools: both, change: func(f *Facts) { f.Conntrack = &Conntrack{Entries: 90, Limit: 100} },
			want: "ConntrackFull connection tracking net.netfilter.nf_conntrack_max"},
		{name: "a table that is not full", pools: both, change: func(f *Facts) { f.Conntrack = &Conntrack{Entries: 89, Limit: 100} }},
		{name: "no limit", pools: both, change: func(f *Facts) { f.Conntrack = &Conntrack{Entries: 89} }},
		{name: "old failures", pools: both, change: func(f *Facts) {
			f.Conntrack, f.Earlier = &Conntrack{Limit: 100, InsertFailed: 5, Dropped: 7}, &Conntrack{InsertFailed: 5, Dropped: 7}
		}},
		{name: "new failures", pools: both, change: func(f *Facts) {
			f.Conntrack, f.Earlier = &Conntrack{Limit: 100, InsertFailed: 6, Dropped: 8}, &Conntrack{InsertFailed: 5, Dropped: 7}
		}, want: "InsertFailures connection tracking insert_failed"},
		{name: "it was full", pools: both, change: func(f *Facts) {
			f.Conntrack, f.Earlier = &Conntrack{Limit: 100, InsertFailed: 5, Dropped: 8}, &Conntrack{InsertFailed: 5, Dropped: 7}
		}, want: "ConntrackFull connection tracking drop"},
		{name: "counters that were reset", pools: both, change: func(f *Facts) {
			f.Conntrack, f.Earlier = &Conntrack{Limit: 100}, &Conntrack{InsertFailed: 5, Dropped: 7}
		}},
		{name: "services in a pool", pools: append(both, pool("wide", "10.0.0.0/8"), pool("lb", "10.96.0.0/16", func(p *model.Pool) { p.AllowedUses |= model.UseLoadBalancer }),
			pool("exempt", "10.96.0.0/12", disabled, noNAT)), change: func(f *Facts) {
			f.Rules = &Ruleset{Services: []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("10.96.0.10")}}
		}, want: "PoolOverlapsServices IPPool wide spec.cidr"},
		{name: "services in no pool", pools: both, change: func(f *Facts) {
			f.Rules = &Ruleset{Services: []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fc00::1")}}
		}},
		{name: "nothing to be read", pools: both, change: func(f *Facts) {
			f.Node, f.Unread = nil, []Unread{{"interfaces", errors.New("no")}}
		}, want: "NotExamined interfaces "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &Facts{Node: node(), Window: time.Minute}
			if tt.change != nil {
				tt.change(f)
			}
			s := &model.Snapshot{Pools: tt.pools, NATConfigurations: tt.config}
			r := Judge(s, compile.Compile(s, model.Local{Name: "node"}), f)
			var got []string
			for _, p := range r.Problems {
				got = append(got, fmt.Sprintf("%s %s %s", p.Kind, p.Object, p.Field))
				if p.What == "" || p.Remedy == "" || strings.HasSuffix(p.What, ".") || strings.HasSuffix(p.Remedy, ".") {
					t.Errorf("%s: says %q, and as remedy %q", p, p.What, p.Remedy)
				}
			}
			if strings.Join(got, "; ") != tt.want {
				t.Errorf("found %q, want %q", strings.Join(got, "; "), tt.want)
			}
		})
	}
}

// TestForwardingKeepsTheDefaultRoute makes sure that who follows the remedy for IPv6 does not cut the node off.
func TestForwardingKeepsTheDefaultRoute(t *testing.T) {
	t.Parallel()
	s := &model.Snapshot{Pools: []*model.Pool{pool("pods6", "fd00::/16")}}
	n := node()
	n.ForwardIPv6 = false
	found := Judge(s, compile.Compile(s, model.Local{Name: "node"}), &Facts{Node: n}).Problems
	if network := Judge(s, compile.Compile(s, model.Local{Name: "node", Network: true}), &Facts{Node: n}).Problems; len(network) > 0 {
		t.Errorf("an agent that turns it on by itself: %+v", network)
	}
	if len(found) != 1 || !strings.Contains(found[0].Remedy, "net.ipv6.conf.eth0.accept_ra=2; then sysctl -w net.ipv6.conf.all.forwarding=1") {
		t.Errorf("found %+v", found)
	}
}

// TestOverlapOfThePodNetwork: that a pod gets the address of a neighbour is said where another network gives out addresses.
func TestOverlapOfThePodNetwork(t *testing.T) {
	t.Parallel()
	s := &model.Snapshot{Pools: []*model.Pool{pool("lan", "192.0.2.0/24")}}
	for network, says := range map[bool]string{false: "a pod may get the address of one of them", true: "this node gives out no address of a block that overlaps it"} {
		found := Judge(s, compile.Compile(s, model.Local{Name: "node", Network: network}), &Facts{Node: node()}).Problems
		if len(found) != 1 || !strings.HasSuffix(found[0].What, says) {
			t.Errorf("pod network %t: %+v", network, found)
		}
	}
}

// TestReport makes sure that the worst comes first, and that what is too much to list is counted.
func TestReport(t *testing.T) {
	t.Parallel()
	var found []Problem
	for i := range 3 * maxPerKind {
		for _, k := range Kinds() {
			found = append(found, Problem{Kind: k, Object: fmt.Sprint(i)})
		}
	}
	slices.Reverse(found)
	r := report(found)
	var order []Kind
	for _, p := range r.Problems {
		order = append(order, p.Kind)
	}
	if len(order) != maxPerKind*len(Kinds()) || !slices.Equal(slices.Compact(order), Kinds()) {
		t.Errorf("%d problems in the order %v", len(r.Problems), order)
	}
	for _, k := range Kinds() {
		if r.Counts[k] != 3*maxPerKind {
			t.Errorf("%s: counted %d, want %d", k, r.Counts[k], 3*maxPerKind)
		}
	}
}
