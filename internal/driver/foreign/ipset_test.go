package foreign

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

const ipsetCommands = `create masq hash:net
add masq 10.0.0.0/16
create all hash:net
add all 10.0.0.0/16
add all 10.2.0.0/24
create KUBE-LOOP-BACK hash:ip,port,ip
create one hash:ip
add one 10.9.9.9
create but hash:net
add but 10.0.0.0/8
add but 10.1.0.0/16 nomatch
create times hash:ip timeout 60
create ports hash:ip,port
create six hash:net family inet6
add six fd00::/16
`

// TestIPSet reads rules that ask for sets of ipset's, as Calico's and kube-proxy's.
func TestIPSet(t *testing.T) {
	t.Parallel()
	const four = `
  not to 10.0.0.0-10.0.255.255 10.2.0.0-10.2.0.255, from 10.0.0.0-10.0.255.255, TRANSLATE | match-set != all dst match-set masq src MASQUERADE
  nothing, TRANSLATE | match-set KUBE-LOOP-BACK MASQUERADE
  to 10.9.9.9-10.9.9.9, TRANSLATE | match-set one dst MASQUERADE
  ?, TRANSLATE | match-set but MASQUERADE
  ?, TRANSLATE | match-set times MASQUERADE
  ?, TRANSLATE | match-set ports MASQUERADE`
	const six = `
  from fd00::-fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff, TRANSLATE | match-set six src MASQUERADE`
	for _, tt := range []struct{ command, want string }{{"iptables-legacy", four}, {"iptables-nft", four}, {"ip6tables-legacy", six}} {
		t.Run(tt.command, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			rules := `
				-A POSTROUTING -m set ! --match-set all dst -m set --match-set masq src -j MASQUERADE
				-A POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
				-A POSTROUTING -m set --match-set one dst -j MASQUERADE
				-A POSTROUTING -m set --match-set but src -j MASQUERADE
				-A POSTROUTING -m set --match-set times src -j MASQUERADE
				-A POSTROUTING -m set --match-set ports src,dst -j MASQUERADE`
			if strings.HasPrefix(tt.command, "ip6") {
				rules = "-A POSTROUTING -m set --match-set six src -j MASQUERADE"
			}
			for line := range strings.Lines(ipsetCommands) {
				if err := run(t, h, "ipset", strings.Fields(line)...); missing(err) || err != nil && strings.Contains(err.Error(), "Kernel error received") {
					t.Skipf("kernel feature missing: ipset (CONFIG_IP_SET): %v", err)
				} else {
					labtest.Must(t, err)
				}
			}
			load(t, h, tt.command, rules)
			got := strings.Join(render(read(t, h)), "\n")
			if !strings.Contains(got, tt.want) {
				t.Errorf("read\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
