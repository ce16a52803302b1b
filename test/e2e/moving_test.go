package e2e

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// masqAgentConfig is what ip-masq-agent is told: the narrow link's network is reached without translation.
const masqAgentConfig = "nonMasqueradeCIDRs: [10.0.0.0/8, 'fd00::/8', 203.0.113.0/24, '2001:db8:f2::/64']\n"

// masqAgentRules are those that it writes by that; once for IPv4 and once for IPv6.
const masqAgentRules = `
iptables -t nat -N IP-MASQ-AGENT
for range in %; do iptables -t nat -A IP-MASQ-AGENT -d $range -j RETURN; done
iptables -t nat -A IP-MASQ-AGENT -j MASQUERADE --random-fully
iptables -t nat -A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
`

// handRule translates the pods by hand, with the ranges of each family.
const handRule = "iptables -t nat -A POSTROUTING -s % -o eth0 -j MASQUERADE"

var handRanges = [2]string{"10.0.0.0/16 ! -d 203.0.113.0/24", "fd00::/64 ! -d 2001:db8:f2::/64"}

// handManifests say the same, beside the pools of the pods.
const handManifests = `
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: there-v4}
spec: {cidr: 203.0.113.0/24, disabled: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: there-v6}
spec: {cidr: '2001:db8:f2::/64', disabled: true}
---
apiVersion: sallyport.dev/v1alpha1
kind: NATConfiguration
metadata: {name: uplink}
spec: {outInterfaces: [eth0]}
`

// TestMoving moves a node from what translated before to Sallyport, and back, as docs/moving.md says, while its pod
// opens connections and has others that last. Nothing is lost, and at no moment does a server see another address than
// before the move.
func TestMoving(t *testing.T) {
	t.Parallel()
	for name, from := range map[string]struct {
		start, end func(*service)        // of what translated before
		manifests  func(*service) string // that say the same
	}{
		"ip-masq-agent": {
			func(s *service) {
				s.both(masqAgentRules, [2]string{"10.0.0.0/8 203.0.113.0/24", "fd00::/8 2001:db8:f2::/64"})
			},
			func(s *service) { s.both(documented(s.t, "chain=IP-MASQ-AGENT\n"), [2]string{}) },
			func(s *service) string {
				cmd := s.command(s.t.Context(), "convert", "ip-masq-agent", "--pod-cidr", "10.0.0.0/16", "--pod-cidr", "fd00::/64", "--enable-ipv6", "-f", "-")
				var out strings.Builder
				cmd.Stdin, cmd.Stdout = strings.NewReader(masqAgentConfig), &out
				labtest.Must(s.t, s.node.Start(cmd), cmd.Wait())
				return out.String()
			},
		},
		"by hand": {
			func(s *service) { s.both(handRule, handRanges) },
			func(s *service) { s.both(strings.Replace(handRule, " -A ", " -D ", 1), handRanges) },
			func(*service) string { return poolsOfPod(true) + handManifests },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t)
			from.start(s)
			wide := watchSources(t, newTap(t, s.wide, "eth0", s.router, "wide"), pathWide)
			narrow := watchSources(t, newTap(t, s.narrow, "eth0", s.router, "narrow"), pathNarrow)
			var tr traffic
			for family := range 2 {
				labtest.Must(t, s.router.AddRoute(lab.Route{To: netip.PrefixFrom(pathPod[family], pathPod[family].BitLen()), Via: pathNode[family]}))
				for server, at := range map[*lab.Host]netip.Addr{s.wide: pathWide[family], s.narrow: pathNarrow[family]} {
					echo(t, server, netip.AddrPortFrom(at, 7))
					tr.begin(context.Background(), s.pod, pathPod[family], netip.AddrPortFrom(at, 7), udpStream, tcpStream, newUDPFlows, newTCPConnections)
				}
			}
			defer tr.end()
			for _, step := range []struct {
				name string
				do   func()
			}{
				{"before", func() {}},
				{"Sallyport runs beside it", func() { s.write("nat.yaml", from.manifests(s)); s.start() }},
				{"the old rules are gone", func() {
					from.end(s)
					s.both("if iptables-save -t nat | grep MASQ; then exit 1; fi", [2]string{})
				}},
				{"Sallyport changes its mind twice", func() { s.write("other.yaml", otherPool(0)); s.ready(); s.write("other.yaml", otherPool(1)); s.ready() }},
				{"the old rules are back", func() { from.start(s) }},
				{"Sallyport is gone", func() {
					if out, err := s.sallyport("cleanup"); err != nil {
						t.Fatalf("%v: %s", err, out)
					}
					labtest.Must(t, s.agent.Wait())
					s.agent = nil
					s.both("iptables-save -t nat | grep MASQUERADE", [2]string{})
				}},
			} {
				step.do()
				for range 2 { // the first echo may be of what was sent before
					for _, st := range tr.streams {
						goesOn(t, step.name, st)
					}
				}
				tr.mustBeWhole(t, step.name)
				s.only(step.name, wide, pathNode)
				s.only(step.name, narrow, pathPod)
			}
		})
	}
}

// only makes sure that since it was asked last a server has seen the given addresses, and no others.
func (s *service) only(when string, seen *sources, want [2]netip.Addr) {
	s.t.Helper()
	got := seen.take()
	for _, a := range want {
		if got[a] == 0 {
			s.t.Errorf("%s: no server saw %s", when, a)
		}
		delete(got, a)
	}
	for a, n := range got {
		if !a.IsLinkLocalUnicast() {
			s.t.Errorf("%s: a server saw %d packets from %s", when, n, a)
		}
	}
}

// both runs a script on the node, once for IPv4 and once for IPv6; the sign % is each family's part.
func (s *service) both(script string, parts [2]string) {
	s.t.Helper()
	for family, program := range []string{"iptables", "ip6tables"} {
		text := strings.NewReplacer("%", parts[family], "iptables", program).Replace(script)
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		defer cancel()
		cmd := s.node.Command(ctx, "bash", "-euxo", "pipefail", "-c", text)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = &said, &said
		labtest.Must(s.t, s.node.Start(cmd))
		if err := cmd.Wait(); err != nil {
			s.t.Fatalf("%v:\n%s", err, said.String())
		}
	}
}

// documented is the block of commands of docs/moving.md that begins with a line, as one runs it who is root already.
func documented(t *testing.T, begins string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "moving.md"))
	labtest.Must(t, err)
	_, rest, ok := strings.Cut(string(text), "```sh\n"+begins)
	script, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("docs/moving.md has no block that begins with %q", begins)
	}
	return begins + regexp.MustCompile(`\bsudo `).ReplaceAllString(script, "")
}
