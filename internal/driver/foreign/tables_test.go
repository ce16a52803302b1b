package foreign

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestTables reads what the nft command makes. Newer versions of it write the same rules in other expressions,
// which must come to the same.
func TestTables(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	labtest.Must(t, run(t, h, "nft", `
table ip asleep { flags dormant; chain c { type nat hook postrouting priority 99; masquerade; }; }
table inet ours { chain c { type nat hook postrouting priority 99; masquerade; }; }
table ip a {
  set some { type ipv4_addr; flags interval; elements = { 10.1.0.0/16, 10.3.0.5, 255.255.255.0/24 }; }
  set single { type ipv4_addr; elements = { 10.9.0.1, 10.9.0.2 }; }
  set times { type ipv4_addr; flags dynamic, timeout; }
  map where { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump b1, 10.0.0.2 : goto b2 }; }
  chain b1 { return; }
  chain b2 { masquerade; }
  chain unused { masquerade; }
  chain sub { ip daddr 10.0.0.0/8 return; meta mark and 0x4000 != 0x4000 return; meta mark set mark xor 0x4000; masquerade fully-random; }
  chain filter { type filter hook postrouting priority 0; ip saddr 10.0.0.0/8 drop; }
  chain post { type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 counter masquerade
    ip saddr 10.244.3.0/25 oifname "eth0" snat to 192.0.2.1
    ip saddr 10.244.3.9 oifname != "cni*" oif eth0 masquerade
    ip saddr { 10.0.0.0/8, 192.168.0.0/16 } tcp dport 80 masquerade
    ip saddr @some ip daddr @single masquerade
    ip saddr @times masquerade
    ip daddr != 10.0.0.0-10.0.0.255 masquerade
    meta l4proto { tcp, udp } oifname { "eth0", "eth1" } masquerade
    ip protocol icmp ct state new,related ct direction original ct status dnat masquerade
    ct state established,invalid accept
    fib daddr type local return
    fib saddr type != local limit rate 5/second goto sub
    ip saddr . ip daddr { 10.0.0.1 . 10.0.0.2 } masquerade
    ip saddr vmap @where
    meta mark set 0x1 counter jump sub
    mark 0x5 return
    iifname "eth0" ct mark 0x1 log drop
    meta skuid 0 masquerade
  }
}
table ip6 a { chain post { type nat hook postrouting priority 0; ip6 saddr fd00::/16 ip6 daddr != { fd00::/16, fe80::/10 } masquerade; }; }
table inet b { chain post { type nat hook postrouting priority 200; meta nfproto ipv4 ip saddr 10.0.0.0/8 masquerade; ip6 saddr fd00::/8 snat to 2001:db8::1; masquerade; }; }
`))
	const want = `table ip a post at 100 for IPv4
  from 10.244.0.0-10.244.255.255, not to 10.244.0.0-10.244.255.255, TRANSLATE | ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
  from 10.244.3.0-10.244.3.127, by eth0, TRANSLATE | ip saddr 10.244.3.0/25 oifname eth0 snat to 192.0.2.1
  from 10.244.3.9-10.244.3.9, not by cni*, by eth0, TRANSLATE | ip saddr 10.244.3.9 oifname != cni* oif eth0 masquerade
  from 10.0.0.0-10.255.255.255 192.168.0.0-192.168.255.255, protocol 6, ?, TRANSLATE | ip saddr { 10.0.0.0/8, 192.168.0.0/16 } l4proto tcp dport 80 masquerade
  from 10.1.0.0-10.1.255.255 10.3.0.5-10.3.0.5 255.255.255.0-255.255.255.255, to 10.9.0.1-10.9.0.1 10.9.0.2-10.9.0.2, TRANSLATE | ip saddr @some ip daddr @single masquerade
  ?, TRANSLATE | ip saddr @times masquerade
  not to 10.0.0.0-10.0.0.255, TRANSLATE | ip daddr != 10.0.0.0-10.0.0.255 masquerade
  protocol 6 17, by eth0 eth1, TRANSLATE | l4proto { tcp, udp } oifname { eth0, eth1 } masquerade
  protocol 1, all, all, nothing, TRANSLATE | protocol icmp ct state related,new ct direction 00 ct status dnat masquerade
  nothing, end | ct state invalid,established
  nothing, return | fib daddr type local
  all, ?, goto sub | fib saddr type != local limit
  ?, TRANSLATE | ip saddr { ... } masquerade
  from 10.0.0.1-10.0.0.1 10.0.0.2-10.0.0.2, unknown b1 b2 | ip saddr vmap @where
  mark &^0xffffffff ^0x1 | mark set
  jump sub |
  mark 0x5/0xffffffff, return | mark 0x5
  ?, nothing, end | iifname eth0 ct mark 0x1
  ?, TRANSLATE | skuid 0x0 masquerade
table ip6 a post at 0 for IPv6
  from fd00::-fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff, not to fd00::-fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe80::-febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff, TRANSLATE | ip6 saddr fd00::/16 ip6 daddr != { fd00::/16, fe80::/10 } masquerade
table inet b post at 200 for IPv4 IPv6
  IPv4, from 10.0.0.0-10.255.255.255, TRANSLATE | ip saddr 10.0.0.0/8 masquerade
  not IPv4, from fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff, TRANSLATE | ip6 saddr fd00::/8 snat to 2001:db8::1
  TRANSLATE | masquerade
table ip a sub
  to 10.0.0.0-10.255.255.255, return | ip daddr 10.0.0.0/8
  not mark 0x4000/0x4000, return | mark != 0x4000/0x4000
  mark &^0x0 ^0x4000 | mark set
  TRANSLATE | masquerade
table ip a b1
  return |
table ip a b2
  TRANSLATE | masquerade`
	if got := strings.Join(render(read(t, h)), "\n"); got != want {
		t.Errorf("read\n%s\nwant\n%s", got, want)
	}
}

// TestIPTablesNFT reads what iptables makes in nf_tables.
func TestIPTablesNFT(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for i, args := range iptablesRules("iptables-nft") {
		if err := run(t, h, args[0], args[1:]...); i == 0 && missing(err) {
			t.Skipf("kernel feature missing: xtables within nf_tables (CONFIG_NFT_COMPAT): %v", err)
		} else {
			labtest.Must(t, err)
		}
	}
	const want = `table ip nat POSTROUTING at 100 for IPv4
  from 10.244.0.0-10.244.255.255, not to 10.244.0.0-10.244.255.255, TRANSLATE | ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 MASQUERADE
  by eth*, from 10.0.0.0-10.255.255.255, TRANSLATE | oifname eth* ip saddr 10.0.0.0/8 SNAT to 192.0.2.1
  not by cni0, protocol 6, from 10.1.2.3-10.1.2.3, ?, TRANSLATE | oifname != cni0 l4proto tcp ip saddr 10.1.2.3 dport 80 MASQUERADE
  all, jump AGENT | dst-type != LOCAL
  not mark 0x4000/0x4000, return | mark != 0x4000/0x4000
  mark &^0x0 ^0x4000 | MARK
  all, TRANSLATE | ctstate 0xc MASQUERADE
  ?, goto AGENT | match statistic
table ip nat AGENT
  to 10.0.0.0-10.255.255.255, return | ip daddr 10.0.0.0/8
  TRANSLATE | MASQUERADE`
	if got := strings.Join(render(read(t, h)), "\n"); got != want {
		t.Errorf("read\n%s\nwant\n%s", got, want)
	}
}

// iptablesRules are commands that make some rules, by iptables of one kind or the other.
func iptablesRules(command string) (out [][]string) {
	for _, line := range []string{
		"-N AGENT",
		"-A AGENT -d 10.0.0.0/8 -j RETURN",
		"-A AGENT -j MASQUERADE",
		"-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -m comment --comment pods -j MASQUERADE --random-fully",
		"-A POSTROUTING -s 10.0.0.0/8 -o eth+ -j SNAT --to-source 192.0.2.1",
		"-A POSTROUTING -s 10.1.2.3 ! -o cni0 -p tcp -m tcp --dport 80 -j MASQUERADE",
		"-A POSTROUTING -m addrtype ! --dst-type LOCAL -j AGENT",
		"-A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
		"-A POSTROUTING -j MARK --xor-mark 0x4000",
		"-A POSTROUTING -m conntrack --ctstate NEW,RELATED -j MASQUERADE",
		"-A POSTROUTING -m statistic --mode nth --every 2 --packet 0 -g AGENT",
	} {
		out = append(out, append([]string{command, "-w", "-t", "nat"}, strings.Fields(line)...))
	}
	return out
}
