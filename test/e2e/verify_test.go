package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/agent"
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

// secondAddress is another one of the server's: answers must come from it, though the kernel would choose the first.
var secondAddress = prefixes("10.0.3.77/24", "2001:db8:a3::77/64")

// serve runs the server on its host.
func (l *outsideLab) serve(t *testing.T) {
	t.Helper()
	mac, err := l.hosts[4].MAC("in")
	labtest.Must(t, err)
	for _, a := range secondAddress {
		labtest.Must(t, l.hosts[4].AddAddress("in", a), l.hosts[3].AddNeighbour("out", a.Addr(), mac))
	}
	var s *verify.Server
	labtest.Must(t, l.hosts[4].Do(func() (err error) {
		s, err = verify.Listen(t.Context(), netip.AddrPort{}, nil, slog.New(slog.DiscardHandler))
		return err
	}))
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	t.Cleanup(func() { labtest.Must(t, <-done) })
	for family := range l.server {
		l.server[family] = netip.AddrPortFrom(secondAddress[family].Addr(), s.Addr().Port())
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

// rules are those of each host; "mtu" is that of the link between r1 and r2. % stands for the family: ip or ip6.
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
	{"two routers", rules{"r1": masquerade, "r2": masquerade}, 2,
		"translated further on | udp: translated further on, by hop 3, HOP3 | tcp: translated further on, where is unknown | size: kept"},
	{"a router that reports no expiry", rules{"r1": masquerade + "\n}\nchain silence {\n" + "type filter hook output priority 0; icmp type time-exceeded drop; icmpv6 type time-exceeded drop"}, 2,
		"translated further on | udp: translated further on, by hop 2, which owns OUT1 | tcp: translated further on, where is unknown | size: kept"},
	{"a silent router", rules{"r1": masquerade + "\n}\nchain silence {\n" + silence}, 2,
		"translated further on | udp: translated further on, between this node and HOP3 | tcp: translated further on, where is unknown | size: kept"},
	{"a link of 1400 that says so", rules{"mtu": "1400"}, 0, "kept | udp: kept | tcp: kept | size: kept 1400/1500 1400/1500"},
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
			if mtu, err := strconv.Atoi(tc.rules["mtu"]); err == nil {
				labtest.Must(t, l.hosts[2].SetMTU("out", mtu), l.hosts[3].SetMTU("in", mtu))
			}
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				r, code, err := l.from(t, family, "--netns", l.podNamespace())
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
		"HOP3", outsideLink(family, 2, 1).Addr().String(), "OUT1", outsideLink(family, 2, 0).Addr().String(),
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
		if s := r.Evidence.Sizes; f.Of == "size" && s.Up.Fails+s.Down.Fails > 0 {
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
  The server 10.0.3.77:PORT saw 10.0.2.1:PORT, and the socket sent from 10.0.1.1:PORT.
  A stateless rule or an eBPF program of this node would not show there.
  A trace to 10.0.2.1 ends 1 hop away.
  The error for the server's answer with TTL 2 bears 10.0.2.1, that for TTL 1 does not; both ways have 3 hops.

tcp: translated further on, where is unknown
  This node's conntrack table has no entry of the flow, so that no connection tracking translates it here.
  The server 10.0.3.77:PORT saw 10.0.2.1:PORT, and the socket sent from 10.0.1.1:PORT.
  A stateless rule or an eBPF program of this node would not show there.
  The flow of UDP arrived with the same address; only that flow was traced.

size: kept
  A packet of 1500 bytes with DF, the MTU of the interface, passed to the server.
  A packet of 1500 bytes with DF, the MTU of the interface, passed from the server.

The path to 10.0.3.77:PORT, by the ICMP errors that probes brought:
  1  10.0.1.2
  2  10.0.2.2
  3  10.0.3.77, the server
`
	if out != want || code != 2 {
		t.Errorf("exit code %d\n%s\nwant\n%s", code, out, want)
	}
}

// TestVerifyOfAPod finds the pod's address by the agent, and its namespace by the address. It does not run beside other labs, whose
// pods have the same address.
func TestVerifyOfAPod(t *testing.T) {
	l := newOutsideLab(t)
	inPod := l.hosts[0].Command(t.Context(), "sleep", "infinity")
	labtest.Must(t, l.hosts[0].Start(inPod))
	t.Cleanup(func() { _ = inPod.Wait() })
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	labtest.Must(t, err)
	said := agent.IPAMResponse{Node: "node", Workloads: []agent.IPAMWorkload{
		{Pod: "default/web", Addresses: []netip.Addr{outsidePod[0].Addr(), outsidePod[1].Addr()}},
		{Pod: "default/gone", Addresses: []netip.Addr{mapped[0].Addr()}},
	}}
	srv := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(said) }), ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(listener) }()
	t.Cleanup(func() { _ = srv.Close() })
	for family, a := range outsidePod {
		r, code, err := l.from(t, family, "--pod", "default/web", "--socket", socket)
		if err != nil || code != 0 || r.Evidence.UDP.Arrived.Addr() != a.Addr() || r.Evidence.TCP.Arrived.Addr() != a.Addr() {
			t.Errorf("%s: exit code %d, %v, %s", a, code, err, findings(r))
		}
	}
	if _, _, err := l.from(t, 0, "--pod", "default/other", "--socket", socket); err == nil || !strings.Contains(err.Error(), "has given no address") {
		t.Errorf("a pod that the agent does not know: %v", err)
	}
	if _, _, err := l.from(t, 0, "--pod", "default/gone", "--socket", socket); err == nil || !strings.Contains(err.Error(), "no network namespace of a process here, or in /run/netns, has 198.18.0.10") {
		t.Errorf("an address that no namespace has: %v", err)
	}
}

// TestVerifyServe runs the command as root, and looks what it may do then.
func TestVerifyServe(t *testing.T) {
	t.Parallel()
	l := newOutsideLab(t)
	if text, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(text))) != 3 || strings.Fields(string(text))[2] == "1" {
		t.Skip("kernel feature missing: user 65534, which is in no user namespace without root")
	}
	program, err := os.Executable()
	labtest.Must(t, err)
	cmd := l.hosts[4].Command(t.Context(), program, "verify", "serve", "--listen", ":99", "--allow", outsidePod[0].String(), "--allow", outsidePod[1].String())
	cmd.Env = append(os.Environ(), programEnv+"=1")
	said, err := cmd.StderrPipe()
	labtest.Must(t, err)
	labtest.Must(t, l.hosts[4].Start(cmd))
	t.Cleanup(func() { _ = cmd.Wait() })
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.Contains(line, "answering") {
		t.Fatalf("%q, %v", line, err)
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("%v, %v", tasks, err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		labtest.Must(t, err)
		for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534\n", "Gid:\t65534\t65534\t65534\t65534\n", "Groups:\t \n", "CapPrm:\t0000000000000000\n", "CapEff:\t0000000000000000\n"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q:\n%s", task, want, text)
			}
		}
	}
	for family := range l.server {
		l.server[family] = netip.AddrPortFrom(l.server[family].Addr(), 99)
		r, code, err := l.from(t, family, "--netns", l.podNamespace())
		if err != nil || code != 0 {
			t.Errorf("exit code %d, %v, %s", code, err, findings(r))
		}
	}
	r, code, err := l.from(t, 0) // from the node's own address, which is not allowed
	if err != nil || code != 3 || r.Verdict != verify.Unknown {
		t.Errorf("not allowed: exit code %d, %v, %s", code, err, findings(r))
	}
}

// TestVerifyWithAForeignServer has a server that knows RFC 8489 and nothing else, for UDP alone: the place of a translation that
// no trace from there shows is never named.
func TestVerifyWithAForeignServer(t *testing.T) {
	t.Parallel()
	l := newOutsideLab(t)
	l.load(t, l.hosts[2], 0, masquerade)
	var conn *net.UDPConn
	labtest.Must(t, l.hosts[4].Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.3.77:3479")))
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			_, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			answer := append([]byte{1, 1, 0, 12}, b[4:20]...)
			answer = append(answer, 0, 0x20, 0, 8, 0, 1, byte(from.Port()>>8)^0x21, byte(from.Port())^0x12)
			for i, v := range from.Addr().Unmap().As4() {
				answer = append(answer, v^b[4+i])
			}
			_, _ = conn.WriteToUDPAddrPort(answer, from)
		}
	}()
	l.server[0] = netip.AddrPortFrom(l.server[0].Addr(), 3479)
	r, code, err := l.from(t, 0, "--netns", l.podNamespace())
	const want = "translated further on | udp: translated further on, where is unknown | tcp: unknown"
	if err != nil || code != 2 || findings(r) != want || r.Evidence.ToArrived.End != 2 || r.Evidence.Path.End != 4 || !r.Evidence.TCP.Refused {
		t.Errorf("exit code %d, %v, %s\n%+v", code, err, findings(r), r.Evidence)
	}
}

// podNamespace is a path to the pod's network namespace.
func (l *outsideLab) podNamespace() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.hosts[0].FD())
}
