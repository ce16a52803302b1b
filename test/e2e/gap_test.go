package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// Who sends in the test for gaps beside the path's pod: a pod of a pool that is not translated, and one of a pool
// about which the decision changes.
var (
	gapPublic  = addresses("10.2.0.2", "fd00:2::2")
	gapFlipped = addresses("10.3.0.2", "fd00:3::2")
)

// gapPools are the pools of the test for gaps.
func gapPools(flipped bool) string {
	const manifest = "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: %s\nspec:\n  cidr: %s\n  natOutgoing: %t\n"
	text := poolsOfPod(true)
	for i, cidr := range []string{"10.2.0.0/16", "fd00:2::/64"} {
		text += fmt.Sprintf(manifest, fmt.Sprintf("public-%d", i), cidr, false)
	}
	for i, cidr := range []string{"10.3.0.0/16", "fd00:3::/64"} {
		text += fmt.Sprintf(manifest, fmt.Sprintf("flipped-%d", i), cidr, flipped)
	}
	return text
}

// otherPool is one of many pools that nobody's address is in.
func otherPool(i int) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: other\nspec:\n  cidr: 10.%d.0.0/16\n  natOutgoing: %t\n", 100+i%50, i%3 == 0)
}

// newGap is a service whose pod has the addresses of all three, with an echo server outside.
func newGap(t *testing.T) (*service, *sources) {
	t.Helper()
	s := newService(t)
	for _, more := range [][2]netip.Addr{gapPublic, gapFlipped} {
		for family, address := range more {
			labtest.Must(t, s.pod.AddAddress("eth0", netip.PrefixFrom(address, address.BitLen())),
				s.node.AddRoute(lab.Route{To: netip.PrefixFrom(address, address.BitLen()), Via: pathPod[family]}),
				s.router.AddRoute(lab.Route{To: netip.PrefixFrom(address, address.BitLen()), Via: pathNode[family]}))
		}
	}
	for family := range 2 {
		echo(t, s.wide, netip.AddrPortFrom(pathWide[family], 7))
	}
	return s, watchSources(t, newTap(t, s.wide, "eth0", s.router, "wide"), pathWide)
}

// steady is traffic about which no decision changes.
func (s *service) steady() *traffic {
	var tr traffic
	for family, server := range pathWide {
		at := netip.AddrPortFrom(server, 7)
		tr.begin(context.Background(), s.pod, pathPod[family], at, udpStream, tcpStream, newUDPFlows, newTCPConnections)
		tr.begin(context.Background(), s.pod, gapPublic[family], at, udpStream, tcpStream)
	}
	return &tr
}

// mustBeWhole makes sure that steady traffic lost nothing, and that outside saw the addresses that it should.
func (s *service) mustBeWhole(when string, tr *traffic, seen map[netip.Addr]uint64) {
	s.t.Helper()
	tr.mustBeWhole(s.t, when)
	for address, n := range seen {
		if address != pathNode[0] && address != pathNode[1] && address != gapPublic[0] && address != gapPublic[1] && !address.IsLinkLocalUnicast() {
			s.t.Errorf("%s: outside saw %d packets from %s", when, n, address)
		}
	}
}

// TestNoGap sends UDP and TCP of every kind through the node while pools change, the agent is killed, an older
// table is replaced, and somebody tries to take the table away. Nothing may be lost, and outside may see no other
// address than before.
func TestNoGap(t *testing.T) {
	t.Parallel()
	s, seen := newGap(t)
	s.write("pods.yaml", gapPools(true))
	s.start()
	phases := []struct {
		name string
		do   func()
	}{
		{"nothing is done", func() { time.Sleep(500 * time.Millisecond) }},
		{"200 pools change", func() {
			for i := range 200 {
				s.write("other.yaml", otherPool(i))
				time.Sleep(5 * time.Millisecond) // so that most come to the kernel one by one
			}
			s.ready()
		}},
		{"the decision about other pods changes", func() { s.flip(seen) }},
		{"20 restarts by SIGKILL", func() {
			for i := range 20 {
				s.end(syscall.SIGKILL)
				s.write("other.yaml", otherPool(i))
				s.launch()
				time.Sleep(time.Duration(i) * 10 * time.Millisecond) // killed wherever it has come to
			}
			s.ready()
		}},
		{"an upgrade", func() {
			s.end(syscall.SIGTERM)
			s.olderTable()
			s.start()
			if chains := s.nft("list", "chains", "inet"); !strings.Contains(chains, "chain guard") {
				t.Errorf("the new agent has not replaced the older table:\n%s", chains)
			}
		}},
		{"somebody tries to take the table away", func() {
			for range 20 {
				s.tamper()
			}
		}},
	}
	for _, phase := range phases {
		begun := time.Now()
		tr := s.steady()
		time.Sleep(50 * time.Millisecond)
		phase.do()
		time.Sleep(50 * time.Millisecond)
		tr.end()
		s.mustBeWhole(phase.name, tr, seen.take())
		t.Logf("%s: %v", phase.name, time.Since(begun).Round(time.Millisecond))
	}
}

// flip changes the decision about some pods four times, while they send. Once the node is ready, outside sees
// them as it should and in no other way; what they lose in between, moving, is told and not counted.
func (s *service) flip(seen *sources) {
	s.t.Helper()
	var tr traffic
	for family, server := range pathWide {
		tr.begin(context.Background(), s.pod, gapFlipped[family], netip.AddrPortFrom(server, 7), udpStream, newUDPFlows)
	}
	for i := range 4 {
		translated := i%2 == 1
		s.write("pods.yaml", gapPools(translated))
		s.ready()
		time.Sleep(20 * time.Millisecond) // what was on its way is outside
		seen.take()
		for _, st := range tr.streams {
			goesOn(s.t, "after a flip", st)
		}
		if now := seen.take(); translated != (now[gapFlipped[0]]+now[gapFlipped[1]] == 0) {
			s.t.Errorf("flip %d: outside saw %d and %d packets with the pods' addresses; translated: %t", i, now[gapFlipped[0]], now[gapFlipped[1]], translated)
		}
	}
	tr.end()
	for _, st := range tr.streams {
		s.t.Logf("moved four times: %v", st)
		if st.broken.Load() != nil {
			s.t.Error(st)
		}
	}
	time.Sleep(20 * time.Millisecond)
	seen.take()
}

// ready waits until the node is ready.
func (s *service) ready() {
	s.t.Helper()
	if out, err := s.sallyport("status", "--wait", "10s"); err != nil {
		s.t.Fatalf("the agent is not ready: %v\n%s", err, out)
	}
}

// nft runs the nft command on the node.
func (s *service) nft(args ...string) string {
	s.t.Helper()
	out, err := s.tryNFT(args...)
	if err != nil {
		s.t.Fatalf("nft %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *service) tryNFT(args ...string) (out string, err error) {
	err = s.node.Do(func() error {
		b, err := exec.Command("nft", args...).CombinedOutput()
		out = string(b)
		return err
	})
	return out, err
}

// olderTable leaves the table as a version without leak guard does when it ends, in place of what stands.
func (s *service) olderTable() {
	s.t.Helper()
	older, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: s.node.FD()})
	labtest.Must(s.t, err)
	plan := compile.Compile(snapshot(&model.NATConfiguration{LeakGuard: ptr(model.LeakGuardDisabled)}, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat"),
		pool("c 10.2.0.0/16"), pool("d fd00:2::/64")), model.Local{Name: "node"})
	labtest.Must(s.t, older.Apply(s.t.Context(), plan.NAT), older.Close())
	if chains := s.nft("list", "chains", "inet"); strings.Contains(chains, "chain guard") {
		s.t.Fatalf("the older table has a leak guard:\n%s", chains)
	}
}

// tamper tries what others do to tables that are not theirs. The kernel lets nobody but its owner do it, or this
// is not the kernel for it.
func (s *service) tamper() {
	s.t.Helper()
	if !strings.Contains(s.nft("list", "table", "inet", "sallyport"), "flags owner") {
		s.t.Skip("needs kernel 6.9: tables with the flags owner and persist")
	}
	s.nft("flush", "ruleset") // passes the table by
	for _, try := range []string{"delete table inet sallyport", "flush chain inet sallyport postrouting", "flush set inet sallyport source4"} {
		if out, err := s.tryNFT(strings.Fields(try)...); err == nil {
			s.t.Errorf("nft %s was allowed: %s", try, out)
		}
	}
}
