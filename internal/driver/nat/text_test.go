package nat

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TestText compares the text of every rule with what the nft command makes of it.
func TestText(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	d := ns.driver()
	fixed := simplePlan(t)
	fixed.To4, fixed.To6 = netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	ports := fixed
	ports.Ports, ports.UDPPorts = model.PortRange{First: 1024, Last: 2047}, model.PortRange{First: 4096, Last: 4096}
	masqueradePorts := ports
	masqueradePorts.To4, masqueradePorts.To6, masqueradePorts.Allocation = netip.Addr{}, netip.Addr{}, model.PortsRandom
	interfaces := simplePlan(t)
	interfaces.OutInterfaces, interfaces.Allocation = []string{"eth0", "bond*"}, model.PortsPreserve
	for _, plan := range []compile.NAT{simplePlan(t), fixed, ports, masqueradePorts, interfaces} {
		mustApply(t, d, plan)
		compareText(t, ns, d)
		plan.LeakGuard = true
		mustApply(t, d, plan)
		compareText(t, ns, d)
	}
	ns.nft("delete", "table", "inet", TableName)
	ns.nft("add", "table", "inet", TableName)
	ns.nft("add chain inet sallyport strange { type filter hook forward priority 0; }")
	for _, rule := range []string{
		`iifname "eth1" counter drop`,
		"ct state invalid,untracked accept",
		"fib saddr type local return",
		"ip6 daddr != fe80::1 drop",
		"meta nfproto ipv4 meta l4proto tcp accept",
	} {
		ns.nft("add rule inet sallyport strange " + rule)
	}
	compareText(t, ns, d)
}

// compareText compares, chain by chain, our text of the rules that stand in the kernel with nft's.
func compareText(t *testing.T, ns *namespace, d *Driver) {
	t.Helper()
	all, err := d.Engine.Preview(t.Context(), &nftables.Table{}) // of which no chain would be left
	if err != nil || len(all.Chains) == 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, c := range all.Chains {
		var got, want []string
		for _, r := range c.Remove {
			// What a later word implies, nft leaves out even where another stands in between.
			got = append(got, strings.Replace(r, "meta l4proto ipv6-icmp ip6 hoplimit", "ip6 hoplimit", 1))
		}
		for line := range strings.Lines(ns.nft("list", "chain", "inet", TableName, c.Name)) {
			line = strings.TrimSpace(line)
			if !regexp.MustCompile(`^(table|chain|type|\}|$)`).MatchString(line) {
				want = append(want, strings.Replace(line, "counter packets 0 bytes 0", "counter", 1))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("chain %s (-nft +ours):\n%s", c.Name, diff)
		}
	}
}
