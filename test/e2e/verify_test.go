package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/verify"
)

// outsideLab is a pod whose address the routers know, and a host outside:
//
//	pod ── node ── r1 ── r2 ── server
type outsideLab struct {
	hosts  []*lab.Host // in that order
	server [2]netip.AddrPort
}

// outsidePod are the pod's addresses, and mapped are those that nothing owns and the routers send to r1.
var outsidePod, mapped = prefixes("203.0.113.10/24", "2001:db8:113::10/64"), prefixes("198.18.0.10/24", "2001:db8:18::10/64")

// outsideLink is the address of one end of a link, of which the pod's is the first.
func outsideLink(family, link, end int) netip.Prefix {
	switch {
	case link == 0 && end == 0:
		return outsidePod[family]
	case link == 0:
		return prefixes("203.0.113.1/24", "2001:db8:113::1/64")[family]
	}
	return prefixes(fmt.Sprintf("10.0.%d.%d/24", link, end+1), fmt.Sprintf("2001:db8:a%d::%d/64", link, end+1))[family]
}

func newOutsideLab(t *testing.T) *outsideLab {
	t.Helper()
	l := &outsideLab{}
	for _, name := range []string{"pod", "node", "r1", "r2", "server"} {
		l.hosts = append(l.hosts, labtest.NewHost(t, name))
	}
	for i := range 4 {
		both := func(end int) []netip.Prefix {
			return []netip.Prefix{outsideLink(0, i, end), outsideLink(1, i, end)}
		}
		labtest.Must(t, lab.Link(lab.Port{Host: l.hosts[i], Name: "out", Addresses: both(0)}, lab.Port{Host: l.hosts[i+1], Name: "in", Addresses: both(1)}))
	}
	for family, all := range everything {
		for i := range 4 {
			labtest.Must(t, l.hosts[i].AddRoute(lab.Route{To: all, Via: outsideLink(family, i, 1).Addr()}))
		}
		labtest.Must(t, l.hosts[4].AddRoute(lab.Route{To: all, Via: outsideLink(family, 3, 0).Addr()}))
		for i := 2; i < 4; i++ { // back to what lies behind
			via := outsideLink(family, i-1, 0).Addr()
			for link := range i - 1 {
				labtest.Must(t, l.hosts[i].AddRoute(lab.Route{To: outsideLink(family, link, 0), Via: via}))
			}
		}
		labtest.Must(t, l.hosts[3].AddRoute(lab.Route{To: mapped[family], Via: outsideLink(family, 2, 0).Addr()}))
	}
	for _, h := range l.hosts[1:4] {
		labtest.Must(t, h.Forward())
	}
	l.serve(t)
	return l
}

// serve runs the server on its host.
func (l *outsideLab) serve(t *testing.T) {
	t.Helper()
	var s *verify.Server
	labtest.Must(t, l.hosts[4].Do(func() (err error) {
		s, err = verify.Listen(t.Context(), netip.AddrPort{}, nil, slog.New(slog.DiscardHandler))
		return err
	}))
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	t.Cleanup(func() { labtest.Must(t, <-done) })
	for family := range l.server {
		l.server[family] = netip.AddrPortFrom(outsideLink(family, 3, 1).Addr(), s.Addr().Port())
	}
}

// from runs verify from on the node.
func (l *outsideLab) from(t *testing.T, family int, args ...string) (r verify.Report, code int, err error) {
	out, code, err := l.say(t, append([]string{l.server[family].String(), "-o", "json"}, args...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &r)
	}
	return r, code, err
}

// say runs verify from on the node, and returns what it prints.
func (l *outsideLab) say(t *testing.T, args ...string) (out string, code int, err error) {
	program, err := os.Executable()
	if err != nil {
		return "", 0, err
	}
	cmd := l.hosts[1].Command(t.Context(), program, append([]string{"verify", "from"}, args...)...)
	cmd.Env = append(os.Environ(), programEnv+"=1")
	var said, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &errs
	if err = l.hosts[1].Start(cmd); err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && said.Len() > 0 {
		return said.String(), exit.ExitCode(), nil
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, errs.String())
	}
	return said.String(), 0, err
}

// rules are those of one host. % stands for the family: ip or ip6.
type rules map[string]string

// Where the routers translate: hop 2 is r1, as it is seen from the pod.
const (
	masquerade = "type nat hook postrouting priority srcnat; oifname out masquerade"
	snat       = "type nat hook postrouting priority srcnat; oifname out snat to "
	silence    = "type filter hook output priority 0; icmp type { time-exceeded, destination-unreachable, echo-reply } drop; icmpv6 type { time-exceeded, destination-unreachable, echo-reply } drop"
)

// verifyCases say what routers do and what verify is to find. POD, MAPPED and HOP2 stand for addresses.
var verifyCases = []struct {
	what  string
	rules rules
	code  int
	want  string // the verdict, and each finding
}{
	{"a clean path", nil, 0, "kept | udp: kept | tcp: kept | size: kept"},
	{"masquerade on the node", rules{"node": masquerade}, 2,
		"translated by this node | udp: translated by this node | tcp: translated by this node | size: kept"},
	{"masquerade on a router", rules{"r1": masquerade}, 2,
		"translated further on | udp: translated further on, by hop 2, HOP2 | tcp: translated further on, where is unknown | size: kept"},
	{"masquerade on both", rules{"node": masquerade, "r1": masquerade}, 2,
		"translated further on | udp: translated by this node | udp: translated further on, by hop 2, HOP2 | tcp: translated by this node | tcp: translated further on, where is unknown | size: kept"},
	{"SNAT to an address that no box owns", rules{"r1": snat + "MAPPED"}, 2,
		"translated further on | udp: translated further on, by hop 2, HOP2 | tcp: translated further on, where is unknown | size: kept"},
	{"stateless 1:1", rules{"r1": "type filter hook postrouting priority 300; oifname out % saddr POD % saddr set MAPPED\n}\n" +
		"chain back {\ntype filter hook prerouting priority raw; iifname out % daddr MAPPED % daddr set POD"}, 2,
		"translated further on | udp: translated further on, by hop 2, HOP2 | tcp: translated further on, where is unknown | size: kept"},
	{"only the port", rules{"r1": snat + "POD:7000-7100"}, 2,
		"port rewritten | udp: port rewritten, by hop 2, HOP2 | tcp: port rewritten, where is unknown | size: kept"},
	{"no way back", rules{"r2": "type filter hook forward priority 0; % daddr POD drop"}, 2, "no way back | udp: no way back | tcp: unknown"},
	{"the request is dropped", rules{"r1": "type filter hook forward priority 0; % saddr POD drop"}, 2, "never arrived | udp: never arrived | tcp: unknown"},
	{"a black hole at 1400", rules{"r1": "type filter hook forward priority 0; meta length > 1400 drop"}, 2,
		"MTU black hole | udp: kept | tcp: kept | size: MTU black hole 1400/1401 1400/1401"},
	{"a black hole on the way back", rules{"r1": "type filter hook forward priority 0; iifname out meta length > 1400 drop"}, 2,
		"MTU black hole | udp: kept | tcp: kept | size: MTU black hole 1500/0 1400/1401"},
	{"silent routers", rules{"node": silence, "r2": silence, "r1": masquerade + "\n}\nchain silence {\n" + silence}, 2,
		"translated further on | udp: translated further on, where is unknown | tcp: translated further on, where is unknown | size: kept"},
	{"a silent path that is clean", rules{"node": silence, "r1": silence, "r2": silence}, 0, "kept | udp: kept | tcp: kept | size: kept"},
}

// verifyAtOnce is how many run at once: they wait for packets that do not come, most of the time.
const verifyAtOnce = 8

// TestVerify has verify find out what routers do, in both families.
func TestVerify(t *testing.T) {
	t.Parallel()
	var all sync.WaitGroup
	places := make(chan struct{}, verifyAtOnce)
	for _, tc := range verifyCases {
		for family, name := range []string{"IPv4", "IPv6"} {
			l := newOutsideLab(t)
			for _, h := range l.hosts[1:4] {
				l.load(t, h, family, tc.rules[h.Name()])
			}
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				r, code, err := l.from(t, family, "--netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.hosts[0].FD()))
				if err != nil {
					t.Errorf("%s, %s: %v", tc.what, name, err)
					return
				}
				if got, want := findings(r), l.fill(tc.want, family); got != want || code != tc.code {
					evidence, _ := json.MarshalIndent(r, "", " ")
					t.Errorf("%s, %s: exit code %d, %s\nwant %d, %s\n%s", tc.what, name, code, got, tc.code, want, evidence)
				}
			})
		}
	}
	all.Wait()
}

// fill puts addresses of a family in the place of their names.
func (l *outsideLab) fill(s string, family int) string {
	port := outsidePod[family].Addr().String()
	if family == 1 && strings.Contains(s, "POD:") {
		port = "[" + port + "]"
	}
	return strings.NewReplacer("POD:", port+":", "POD", port, "MAPPED", mapped[family].Addr().String(), "HOP2", outsideLink(family, 1, 1).Addr().String(),
		"%", []string{"ip", "ip6"}[family]).Replace(s)
}

func (l *outsideLab) load(t *testing.T, h *lab.Host, family int, chain string) {
	t.Helper()
	if chain == "" {
		return
	}
	table := []string{"ip", "ip6"}[family]
	if strings.Contains(chain, "icmp ") {
		table = "inet"
	}
	if strings.Contains(chain, "POD:") {
		chain = "type nat hook postrouting priority srcnat; oifname out meta l4proto { tcp, udp } " + chain[strings.Index(chain, "snat to"):]
	}
	labtest.Must(t, loadRules(h, "table "+table+" rules {\nchain rules {\n"+l.fill(chain, family)+"\n}\n}\n"))
}

// findings is a report in one line.
func findings(r verify.Report) string {
	out := string(r.Verdict)
	for _, f := range r.Findings {
		out += fmt.Sprintf(" | %s: %s", f.Of, f.Verdict)
		if f.Place != nil {
			out += ", " + f.Place.String()
		}
		if s := r.Evidence.Sizes; f.Of == "size" && f.Verdict == verify.BlackHole {
			out += fmt.Sprintf(" %d/%d %d/%d", s.Up.Passes, s.Up.Fails, s.Down.Passes, s.Down.Fails)
		}
	}
	return out
}

// TestVerifyOfTheNode has the node ask for itself, and prints what people read: each line names what it follows from.
func TestVerifyOfTheNode(t *testing.T) {
	t.Parallel()
	l := newOutsideLab(t)
	l.load(t, l.hosts[2], 0, masquerade)
	out, code, err := l.say(t, l.server[0].String())
	labtest.Must(t, err)
	out = regexp.MustCompile(`(:|TCP [a-z ]*)[0-9]{4,5}\b`).ReplaceAllString(out, "${1}PORT")
	const want = `Translated further on

udp: translated further on, by hop 1, 10.0.1.2
  This node's conntrack table has no entry of the flow, so that no connection tracking translates it here.
  The server 10.0.3.2:PORT saw 10.0.2.1:PORT, and the socket sent from 10.0.1.1:PORT.
  A trace to 10.0.2.1 ends 1 hop away.
  The error for the server's answer with TTL 2 bears 10.0.2.1, that for TTL 1 does not; both ways have 3 hops.

tcp: translated further on, where is unknown
  This node's conntrack table has no entry of the flow, so that no connection tracking translates it here.
  The server 10.0.3.2:PORT saw 10.0.2.1:PORT, and the socket sent from 10.0.1.1:PORT.
  The flow of UDP arrived with the same address; only that flow was traced.

size: kept
  A packet of 1500 bytes with DF, the MTU of the interface, passed to the server.
  A packet of 1500 bytes with DF, the MTU of the interface, passed from the server.

The path to 10.0.3.2:PORT, by the ICMP errors that probes brought:
  1  10.0.1.2
  2  10.0.2.2
  3  10.0.3.2, the server
`
	if out != want || code != 2 {
		t.Errorf("exit code %d\n%s\nwant\n%s", code, out, want)
	}
}
