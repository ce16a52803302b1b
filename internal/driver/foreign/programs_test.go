package foreign

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// TestPrograms reads the rules that well-known programs make, and judges them: those that leave pods alone
// must not be reported. 10.244.0.0/16 are the pods, with 10.244.1.0/24 on this node; 10.0.0.0/8 is exempt.
func TestPrograms(t *testing.T) {
	t.Parallel()
	pools := func(more ...*model.Pool) *model.Snapshot {
		return &model.Snapshot{Pools: append(more, &model.Pool{Name: "pods", CIDR: netip.MustParsePrefix("10.244.0.0/16"), NATOutgoing: true, AllowedUses: model.UseWorkload})}
	}
	corporate := &model.Pool{Name: "zcorporate", CIDR: netip.MustParsePrefix("10.0.0.0/8"), Disabled: true, AllowedUses: model.UseWorkload}
	node := &diagnose.Node{ForwardIPv4: true, ForwardIPv6: true, Interfaces: []diagnose.Interface{
		{Name: "eth0", ForwardIPv4: true, Addresses: prefixes("192.0.2.1/24"), Routes: prefixes("0.0.0.0/0", "192.0.2.0/24")},
		{Name: "cni0", ForwardIPv4: true, Addresses: prefixes("10.244.1.1/24"), Routes: prefixes("10.244.1.0/24"), OnLink: prefixes("10.244.1.0/24")},
		{Name: "flannel.1", ForwardIPv4: true, Routes: prefixes("10.244.2.0/24")},
	}}
	for _, tt := range []struct {
		name  string
		pools *model.Snapshot
		rules string
		want  string // the kind, and part of what is said, of the only problem
	}{
		{"kube-proxy", pools(corporate), `
			-N KUBE-POSTROUTING
			-A POSTROUTING -m comment --comment kubernetes -j KUBE-POSTROUTING
			-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
			-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
			-A KUBE-POSTROUTING -m comment --comment kubernetes -j MASQUERADE --random-fully`, ""},
		{"Docker", pools(corporate), `
			-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
			-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE`, ""},
		{"libvirt", pools(corporate), `
			-N LIBVIRT_PRT
			-A POSTROUTING -j LIBVIRT_PRT
			-A LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
			-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535
			-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE`, ""},
		{"flannel, whose range is the only pool", pools(), flannelRules, ""},
		{"flannel, with another range exempt", pools(corporate), flannelRules, "ForeignTranslation catches connections between pools, such as from pool pods (10.244.1.0) to pool zcorporate (10.0.0.0) by eth0"},
		{"a bridge with ipMasq", pools(corporate), `
			-N CNI-a1
			-A POSTROUTING -s 10.244.1.5/32 -j CNI-a1
			-A CNI-a1 -d 10.244.1.0/24 -j ACCEPT
			-A CNI-a1 ! -d 224.0.0.0/4 -j MASQUERADE`, "ForeignTranslation catches connections between pools, such as from pool pods (10.244.1.5) to pool zcorporate"},
		{"ip-masq-agent with all ranges", pools(corporate), masqAgentRules, ""},
		{"a rule for ports", pools(corporate), "-A POSTROUTING -s 10.244.0.0/16 -d 10.20.0.0/16 -p tcp -m multiport --dports 80,443 -j SNAT --to-source 192.0.2.1",
			"PossibleForeignTranslation may catch connections between pools, such as from pool pods (10.244.1.0) to pool zcorporate (10.20.0.0)"},
		{"IPsec's exception, then all", pools(corporate), `
			-A POSTROUTING -m policy --dir out --pol ipsec -j ACCEPT
			-A POSTROUTING -o eth0 -j MASQUERADE`, "PossibleForeignTranslation may catch connections between pools"},
	} {
		for _, command := range []string{"iptables-legacy", "iptables-nft"} {
			t.Run(tt.name+" by "+command, func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				load(t, h, command, tt.rules)
				var rules *diagnose.Ruleset
				labtest.Must(t, h.Do(func() (err error) {
					rules, err = Read(context.Background(), "ours")
					return err
				}))
				plan := compile.Compile(tt.pools, model.Local{Name: "node"})
				got := ""
				for _, p := range diagnose.Judge(tt.pools, plan, &diagnose.Facts{Node: node, Rules: rules}).Problems {
					_, said, _ := strings.Cut(p.What, `" `)
					got += string(p.Kind) + " " + said
				}
				if tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) {
					t.Errorf("found %q\nwant %q\nin\n%s", got, tt.want, strings.Join(render(rules), "\n"))
				}
			})
		}
	}
}

const flannelRules = `
	-N FLANNEL-POSTRTG
	-A POSTROUTING -m comment --comment flanneld -j FLANNEL-POSTRTG
	-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
	-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN
	-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN
	-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN
	-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
	-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully`

const masqAgentRules = `
	-N IP-MASQ-AGENT
	-A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
	-A IP-MASQ-AGENT -d 169.254.0.0/16 -j RETURN
	-A IP-MASQ-AGENT -d 10.0.0.0/8 -j RETURN
	-A IP-MASQ-AGENT -j MASQUERADE`

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}
