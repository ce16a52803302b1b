package foreign

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// needLegacy makes rules by a program of legacy iptables, or skips the test.
func needLegacy(t *testing.T, h *lab.Host, command string) {
	t.Helper()
	for i, args := range iptablesRules(command) {
		if command == "ip6tables-legacy" {
			args = strings.Fields(strings.NewReplacer("10.244.0.0/16", "fd00::/16", "10.0.0.0/8", "fd00::/9", "192.0.2.1", "2001:db8::1", "10.1.2.3", "fd01::3").Replace(strings.Join(args, " ")))
		}
		if err := run(t, h, args[0], args[1:]...); i == 0 && missing(err) {
			t.Skipf("kernel feature missing: the nat table of %s (CONFIG_IP_NF_NAT, CONFIG_IP6_NF_NAT): %v", command, err)
		} else {
			labtest.Must(t, err)
		}
	}
}

func TestLegacy(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	needLegacy(t, h, "iptables-legacy")
	const want = `iptables-legacy table nat POSTROUTING at 100 for IPv4
  from 10.244.0.0-10.244.255.255, not to 10.244.0.0-10.244.255.255, TRANSLATE | -s 10.244.0.0/16 -d != 10.244.0.0/16 MASQUERADE
  from 10.0.0.0-10.255.255.255, by eth*, TRANSLATE | -s 10.0.0.0/8 -o eth* SNAT to 192.0.2.1
  from 10.1.2.3-10.1.2.3, not by cni0, protocol 6, ?, TRANSLATE | -s 10.1.2.3 -o != cni0 -p tcp dport 80 MASQUERADE
  all, jump AGENT | dst-type != LOCAL
  not mark 0x4000/0x4000, return | mark != 0x4000/0x4000
  mark &^0x0 ^0x4000 |
  all, TRANSLATE | ctstate 0xc MASQUERADE
  ?, goto AGENT | match statistic
  end |
iptables-legacy table nat AGENT
  to 10.0.0.0-10.255.255.255, return | -d 10.0.0.0/8
  TRANSLATE | MASQUERADE
  return |`
	if got := strings.Join(render(read(t, h)), "\n"); got != want {
		t.Errorf("read\n%s\nwant\n%s", got, want)
	}
}

func TestLegacyIPv6(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	needLegacy(t, h, "ip6tables-legacy")
	got := strings.Join(render(read(t, h)), "\n")
	for _, want := range []string{
		"ip6tables-legacy table nat POSTROUTING at 100 for IPv6\n",
		"  from fd00::-fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff, not to fd00::-fd00:ffff:ffff:ffff:ffff:ffff:ffff:ffff, TRANSLATE | -s fd00::/16 -d != fd00::/16 MASQUERADE\n",
		"by eth*, TRANSLATE | -s fd00::/9 -o eth* SNAT to 2001:db8::1\n",
		"  from fd01::3-fd01::3, not by cni0, protocol 6, ?, TRANSLATE | -s fd01::3 -o != cni0 -p tcp dport 80 MASQUERADE\n",
		"  all, jump AGENT | dst-type != LOCAL\n",
		"  ?, goto AGENT | match statistic\n",
	} {
		if !strings.Contains(got+"\n", want) {
			t.Errorf("read\n%s\nwithout\n%s", got, want)
		}
	}
}

// TestLegacyMakesNothing makes sure that no table appears since it was looked for.
func TestLegacyMakesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	if rs := read(t, h); len(rs.Chains) > 0 {
		t.Errorf("read %v where there is nothing", render(rs))
	}
	labtest.Must(t, h.Do(func() error {
		for _, v := range legacyVersions() {
			names, err := os.ReadFile("/proc/thread-self/net/" + v.names)
			if err == nil && len(names) > 0 {
				t.Errorf("%s: %s", v.names, names)
			}
		}
		return nil
	}))
}

// FuzzLegacy parses tables, of which the kernel's own are the first.
func FuzzLegacy(f *testing.F) {
	for _, v := range legacyVersions() {
		f.Add(v.addrLen == 4, legacyInfo(0), legacyEntry(&v, "", -5))
		f.Add(v.addrLen == 4, legacyInfo(0), append(legacyEntry(&v, "", v.matches+36), legacyEntry(&v, "ERROR", 0)...))
		f.Add(v.addrLen == 4, legacyInfo(0), legacyEntry(&v, "SNAT", 1))
	}
	f.Fuzz(func(t *testing.T, ipv4 bool, info, blob []byte) {
		v := legacyVersions()[0]
		if !ipv4 {
			v = legacyVersions()[1]
		}
		chains, _, err := v.parse(info, blob, noIPSets())
		if err != nil {
			return
		}
		render(&diagnose.Ruleset{Chains: chains})
	})
}

// legacyInfo is the head of a table whose postrouting chain begins at an offset.
func legacyInfo(post uint32) []byte {
	info := make([]byte, infoLen)
	binary.NativeEndian.PutUint32(info[tableNameLen:], 1<<4)
	binary.NativeEndian.PutUint32(info[tableNameLen+4+4*4:], post)
	return info
}

// legacyEntry is an entry that matches everything, with a target that holds a number.
func legacyEntry(v *legacyVersion, target string, number int) []byte {
	b := make([]byte, v.matches+extensionHeader+8)
	binary.NativeEndian.PutUint16(b[v.target:], uint16(v.matches))
	binary.NativeEndian.PutUint16(b[v.next:], uint16(len(b)))
	copy(b[v.matches+2:], target)
	binary.NativeEndian.PutUint32(b[v.matches+extensionHeader:], uint32(number))
	return b
}
