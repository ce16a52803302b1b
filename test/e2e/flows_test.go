package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// newFlows is a service with an agent, whose pod can be reached from outside, as those can whose pools are
// not translated, and whose node translates a service's address, which a pool holds, to that of narrow.
func newFlows(t *testing.T) *service {
	t.Helper()
	s := newService(t)
	s.returnToPods()
	rules := "table inet services {\nchain pre {\ntype nat hook prerouting priority dstnat;\n"
	for family, ip := range []string{"ip", "ip6"} {
		rules += fmt.Sprintf("%s daddr %s udp dport 53 dnat to %s\n", ip, serviceInPool[family], netip.AddrPortFrom(pathNarrow[family], 9))
	}
	labtest.Must(t, loadRules(s.node, rules+"}\n}\n"))
	s.start()
	return s
}

// returnToPods has the router know the way to pods.
func (s *service) returnToPods() {
	s.t.Helper()
	for family, pod := range pathPod {
		labtest.Must(s.t, s.router.AddRoute(lab.Route{To: netip.PrefixFrom(pod, pod.BitLen()-8).Masked(), Via: pathNode[family]}))
	}
}

// change puts a manifest in force.
func (s *service) change(text string) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "change.yaml")
	labtest.Must(s.t, os.WriteFile(file, []byte(text), 0o644))
	if out, err := s.sallyport("apply", "-f", file, "--wait", "10s"); err != nil {
		s.t.Fatalf("applying: %v\n%s", err, out)
	}
}

// podsAndServices are the pools of pods and of services, with a configuration beside.
func podsAndServices(natOutgoing bool, spec string) string {
	const pool = "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: %s\nspec:\n  cidr: %s\n"
	return poolsOfPod(natOutgoing) + fmt.Sprintf(pool, "services-v4", "10.96.0.0/16") + fmt.Sprintf(pool, "services-v6", "fd00:96::/64") +
		"---\napiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata:\n  name: default\nspec: {" + spec + "}\n"
}

// stream is a flow in full use: the pod sends every millisecond, and so does the server, to whom it saw
// last, until the test ends.
type stream struct {
	name string
	seen atomic.Pointer[netip.Addr] // whom the server saw last
	got  atomic.Uint64              // packets that the pod received
}

// udpStream is a stream to a server, at the address that the pod knows it by.
func (s *service) udpStream(server *lab.Host, at, known netip.AddrPort) *stream {
	s.t.Helper()
	far, err := server.ListenPacket("udp", at.String())
	labtest.Must(s.t, err)
	near, err := s.pod.Dial(context.Background(), "udp", known.String())
	labtest.Must(s.t, err)
	f := &stream{name: "UDP to " + known.String()}
	var last atomic.Pointer[net.Addr]
	s.keepUp(func() { _, _ = near.Write([]byte("from the pod")) }, true)
	s.keepUp(func() {
		if to := last.Load(); to != nil {
			_, _ = far.WriteTo([]byte("from the server"), *to)
		}
	}, true)
	s.keepUp(func() {
		if _, from, err := far.ReadFrom(make([]byte, 100)); err == nil {
			last.Store(&from)
			a := netip.MustParseAddrPort(from.String()).Addr()
			f.seen.Store(&a)
		}
	}, false)
	s.keepUp(func() {
		if _, err := near.Read(make([]byte, 100)); err == nil {
			f.got.Add(1)
		}
	}, false)
	s.t.Cleanup(func() { labtest.Must(s.t, near.Close(), far.Close()) })
	return f
}

// pings is a stream of ICMP echoes with one identifier; the server's kernel answers them.
func (s *service) pings() *stream {
	s.t.Helper()
	far, err := s.wide.ListenPacket("ip4:icmp", pathWide[0].String())
	labtest.Must(s.t, err)
	near, err := s.pod.ListenPacket("ip4:icmp", pathPod[0].String())
	labtest.Must(s.t, err)
	f := &stream{name: "ICMP"}
	echo := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}
	sum := ^(uint16(8)<<8 + 0x1234 + 1)
	echo[2], echo[3] = byte(sum>>8), byte(sum)
	s.keepUp(func() { _, _ = near.WriteTo(echo, &net.IPAddr{IP: pathWide[0].AsSlice()}) }, true)
	s.keepUp(func() {
		b := make([]byte, 100)
		if _, from, err := far.ReadFrom(b); err == nil && b[0] == 8 {
			a := netip.MustParseAddr(from.String())
			f.seen.Store(&a)
		}
	}, false)
	s.keepUp(func() {
		b := make([]byte, 100)
		if _, _, err := near.ReadFrom(b); err == nil && b[0] == 0 {
			f.got.Add(1)
		}
	}, false)
	s.t.Cleanup(func() { labtest.Must(s.t, near.Close(), far.Close()) })
	return f
}

// keepUp repeats something, each millisecond if it is paced, until the test ends.
func (s *service) keepUp(do func(), paced bool) {
	ctx, cancel := context.WithCancel(context.Background())
	s.t.Cleanup(cancel)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			if paced {
				<-tick.C
			}
			do()
		}
	}()
}

// streams are one of each kind, with whom their servers see while they are and are not translated.
func (s *service) streams() (all []*stream, own, translated []netip.Addr) {
	s.t.Helper()
	for family := range pathPod {
		wide, narrow := netip.AddrPortFrom(pathWide[family], 77), netip.AddrPortFrom(pathNarrow[family], 9)
		all = append(all, s.udpStream(s.wide, wide, wide), s.udpStream(s.narrow, narrow, netip.AddrPortFrom(serviceInPool[family], 53)))
		own, translated = append(own, pathPod[family], pathPod[family]), append(translated, pathNode[family], pathNode[family])
	}
	return append(all, s.pings()), append(own, pathPod[0]), append(translated, pathNode[0])
}

// goAs waits until the servers see streams come from the given addresses, and all ends hear each other.
func (s *service) goAs(when string, streams []*stream, want []netip.Addr) {
	s.t.Helper()
	for i, f := range streams {
		s.soon(fmt.Sprintf("%s: %s is seen as %s", when, f.name, want[i]), func() bool {
			a := f.seen.Load()
			return a != nil && *a == want[i]
		})
		before := f.got.Load()
		s.soon(fmt.Sprintf("%s: %s: the pod hears the server", when, f.name), func() bool { return f.got.Load() > before+20 })
		if a := *f.seen.Load(); a != want[i] {
			s.t.Errorf("%s: %s is seen as %s, want %s", when, f.name, a, want[i])
		}
	}
}

// soon waits until something is so, for the time of patience.
func (s *service) soon(what string, is func() bool) {
	s.t.Helper()
	for start := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(start) > patience {
			s.t.Fatalf("it did not happen that %s", what)
		}
	}
}

// older asks the agent how many flows live under an older decision.
func (s *service) older() int {
	s.t.Helper()
	out, err := s.sallyport("status", "-o", "json")
	var status struct {
		Flows struct {
			OlderDecision int `json:"olderDecision"`
		} `json:"flows"`
	}
	labtest.Must(s.t, err, json.Unmarshal([]byte(out), &status))
	return status.Flows.OlderDecision
}

// TestMove turns translation on and off under flows in use: those of UDP and ICMP take the new decision each
// time, also towards a service whose own address is exempt, and those of TCP go on as they are.
func TestMove(t *testing.T) {
	t.Parallel()
	s := newFlows(t)
	s.change(podsAndServices(false, ""))
	streams, own, translated := s.streams()
	s.goAs("at first", streams, own)
	talks := []talk{s.talk(0), s.talk(1)}
	for i := range 3 {
		on := i%2 == 0
		s.change(podsAndServices(on, ""))
		want := own
		if on {
			want = translated
		}
		when := fmt.Sprintf("after %d changes", i+1)
		s.goAs(when, streams, want)
		s.goesOn(when, talks...)
		if n := s.older(); (n > 0) != on {
			t.Errorf("%s: %d flows live under an older decision", when, n)
		}
	}
	s.end(syscall.SIGTERM)
	file := filepath.Join(t.TempDir(), "change.yaml")
	labtest.Must(t, os.WriteFile(file, []byte(podsAndServices(false, "")), 0o644))
	_, err := s.sallyport("apply", "-f", file)
	labtest.Must(t, err)
	s.goAs("without the agent", streams, translated)
	s.start()
	s.goAs("after a change without the agent", streams, own)
	s.goesOn("after a change without the agent", talks...)
}

// TestFirstTranslation turns translation on for the first time on a node where nothing else tracks connections. Until then no packet
// passes a rule. TCP connections that are open go on as they are.
func TestFirstTranslation(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.returnToPods()
	s.start()
	s.change(podsAndServices(false, ""))
	if chains := s.nft("list", "chains"); !strings.Contains(chains, "chain suspect") || strings.Contains(chains, " hook ") {
		t.Errorf("while no pool translates, the node has the chains\n%s", chains)
	}
	talks := []talk{s.talk(0), s.talk(1)}
	s.change(podsAndServices(true, ""))
	s.goesOn("after the change", talks...)
	s.expect("after the change", pathNode)
	s.change(podsAndServices(false, ""))
	s.goesOn("after the second change", talks...)
	s.expect("after the second change", pathPod)
}

// TestMoveWhileFlapping turns translation on and off faster than flows can be judged: in the end all of them
// are as the last decision wants them.
func TestMoveWhileFlapping(t *testing.T) {
	t.Parallel()
	s := newFlows(t)
	s.write("pools.yaml", podsAndServices(false, ""))
	streams, own, translated := s.streams()
	s.goAs("at first", streams, own)
	talks := []talk{s.talk(0), s.talk(1)}
	pace := rand.New(rand.NewPCG(1, 2))
	for round := range 2 {
		for i := range 51 {
			s.write("pools.yaml", podsAndServices(i%2 == 0, ""))
			time.Sleep(time.Duration(pace.IntN(6)) * time.Millisecond) // a pace, nothing is waited for
		}
		when := fmt.Sprintf("after %d changes", 51*(round+1))
		if out, err := s.sallyport("status", "--wait", "10s"); err != nil {
			t.Fatalf("%s: %v\n%s", when, err, out)
		}
		s.goAs(when, streams, translated)
		s.goesOn(when, talks...)
	}
	s.write("pools.yaml", podsAndServices(false, ""))
	s.goAs("off at last", streams, own)
}

// TestMoveToAddress changes the address to translate to.
func TestMoveToAddress(t *testing.T) {
	t.Parallel()
	s := newFlows(t)
	second := [2]netip.Addr{netip.MustParseAddr("192.0.2.99"), netip.MustParseAddr("2001:db8:f0::99")}
	for family, bits := range []int{24, 64} {
		labtest.Must(t, s.node.AddAddress("eth0", netip.PrefixFrom(second[family], bits)))
	}
	addresses := func(a [2]netip.Addr) string {
		return podsAndServices(true, fmt.Sprintf("portRange: 40000-49999, addresses: [%s, %q]", a[0], a[1]))
	}
	s.change(addresses(pathNode))
	streams, _, first := s.streams()
	s.goAs("at first", streams, first)
	talks := []talk{s.talk(0), s.talk(1)}
	s.change(addresses(second))
	want := []netip.Addr{second[0], second[0], second[1], second[1], second[0]}
	s.goAs("with another address", streams, want)
	s.goesOn("with another address", talks...)
	s.change(addresses(pathNode))
	s.goAs("with the first address again", streams, first)
	s.goesOn("with the first address again", talks...)
}

// TestKeep turns translation on and off under flows in use: all go on as they are, and new ones do not.
func TestKeep(t *testing.T) {
	t.Parallel()
	s := newFlows(t)
	for _, on := range []bool{false, true} {
		s.change(podsAndServices(on, "existingFlows: Keep"))
	}
	streams, _, translated := s.streams()
	s.goAs("at first", streams, translated)
	talks := []talk{s.talk(0), s.talk(1)}
	s.change(podsAndServices(false, "existingFlows: Keep"))
	s.goAs("after the change", streams, translated)
	s.goesOn("after the change", talks...)
	s.expect("after the change", pathPod)
	if n := s.older(); n < len(streams)+len(talks) {
		t.Errorf("%d flows live under an older decision, want %d", n, len(streams)+len(talks))
	}
}

// TestReset turns translation on and off under flows in use: none goes on as it is.
func TestReset(t *testing.T) {
	t.Parallel()
	s := newFlows(t)
	s.change(podsAndServices(false, "existingFlows: Reset"))
	streams, own, translated := s.streams()
	s.goAs("at first", streams, own)
	for _, on := range []bool{true, false} {
		talks := []talk{s.talk(0), s.talk(1)}
		when, want := fmt.Sprintf("after natOutgoing became %t", on), own
		if on {
			want = translated
		}
		s.goesOn("before the change", talks...)
		s.change(podsAndServices(on, "existingFlows: Reset"))
		s.goAs(when, streams, want)
		for _, c := range talks {
			s.breaks(when, c)
		}
		if n := s.older(); n != 0 {
			t.Errorf("%s: %d flows live under an older decision", when, n)
		}
	}
}

// breaks makes sure that a connection is of no use any more, whoever speaks first: the far end never hears
// the pod again.
func (s *service) breaks(when string, c talk) {
	s.t.Helper()
	_, err := io.WriteString(c.far, "are you there?")
	labtest.Must(s.t, err, c.near.SetDeadline(time.Now().Add(patience)))
	for err == nil {
		_, err = io.WriteString(c.near, "I am.")
		time.Sleep(time.Millisecond)
	}
	labtest.Must(s.t, c.far.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
	if n, err := c.far.Read(make([]byte, 1)); n != 0 || err == nil {
		s.t.Errorf("%s: the connection from %s lives on", when, c.near.LocalAddr())
	}
}

// TestFlows asks who is behind an address and a port that were seen outside.
func TestFlows(t *testing.T) {
	t.Parallel()
	s := newFlows(t)
	aged := s.node.Sysctl("netfilter/nf_conntrack_timestamp", "1") == nil // it does not show in all user namespaces
	s.change(podsAndServices(true, "portRange: 40000-40999"))
	streams, _, translated := s.streams()
	s.goAs("at first", streams, translated)
	c := s.talk(0)
	seen := c.far.RemoteAddr().String()
	type flow struct {
		Source, Destination, SeenAs netip.AddrPort
		Service                     *netip.AddrPort
		Pool, Protocol, State       string
		AgeSeconds                  *int64
		Older                       bool
	}
	list := func(args ...string) (flows []flow) {
		out, err := s.sallyport(append([]string{"flows", "-o", "json"}, args...)...)
		labtest.Must(t, err)
		for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
			var f flow
			labtest.Must(t, d.Decode(&f))
			flows = append(flows, f)
		}
		return flows
	}
	behind := list("--seen-as", seen)
	if len(behind) != 1 || behind[0].Source.String() != c.near.LocalAddr().String() || behind[0].Destination.String() != c.far.LocalAddr().String() ||
		behind[0].Pool != "pods-v4" || behind[0].Protocol != "tcp" || behind[0].State != "established" || behind[0].Older || (behind[0].AgeSeconds != nil) != aged {
		t.Errorf("behind %s are %+v, want %s", seen, behind, c.near.LocalAddr())
	}
	for args, want := range map[string]int{
		"": 6, "--pool pods-v6": 2, "--destination [" + serviceInPool[1].String() + "]:53 --proto udp": 1,
	} {
		if got := list(strings.Fields(args)...); len(got) != want {
			t.Errorf("flows %s: %+v, want %d", args, got, want)
		}
	}
	out, err := s.sallyport("flows", "--limit", "2")
	if err != nil || strings.Count(out, "\n") != 4 || !strings.Contains(out, "SEEN AS") || !strings.Contains(out, "only 2 are listed, and there are more") {
		t.Errorf("%v, %s", err, out)
	}
	// It is said of a connection that finishes under an older decision.
	s.change(podsAndServices(false, ""))
	s.soon("only the connection is left", func() bool { return len(list()) == 1 })
	if left := list(); !left[0].Older || left[0].Pool != "pods-v4" {
		t.Errorf("%+v is left", left[0])
	}
}
