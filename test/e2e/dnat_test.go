package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// Addresses of services, which no host has: one that a pool holds, whose backend is outside every pool,
// and one outside every pool whose backend a pool holds.
var (
	serviceInPool  = [2]netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::10")}
	serviceOutside = [2]netip.Addr{netip.MustParseAddr("192.0.2.96"), netip.MustParseAddr("2001:db8:f0::96")}
)

// TestServices makes sure that the destination after somebody else's translation decides, as the node
// translates service addresses to those of their backends before the packet is routed.
func TestServices(t *testing.T) {
	t.Parallel()
	p := newPath(t)
	plan := p.program(t, pool("a 10.0.0.0/16 nat"), pool("b fd00::/64 nat"), pool("services 10.96.0.0/16"), pool("services6 fd00:96::/64"),
		pool("public 198.51.100.0/24"), pool("public6 2001:db8:f1::/64"))
	var rules strings.Builder
	for family, ip := range []string{"ip", "ip6"} {
		fmt.Fprintf(&rules, "%s daddr %s udp dport 53 dnat to %s\n", ip, serviceInPool[family], netip.AddrPortFrom(pathNarrow[family], 9))
		fmt.Fprintf(&rules, "%s daddr %s udp dport 53 dnat to %s\n", ip, serviceOutside[family], netip.AddrPortFrom(pathWide[family], 9))
	}
	labtest.Must(t, loadRules(p.node, "table inet services {\nchain pre {\ntype nat hook prerouting priority dstnat;\n"+rules.String()+"}\n}\n"))
	for family, pod := range pathPod {
		bits := pod.BitLen() - 8
		labtest.Must(t, p.router.AddRoute(lab.Route{To: netip.PrefixFrom(pod, bits).Masked(), Via: pathNode[family]}))
		p.useService(t, plan, serviceInPool[family], p.narrow, pathNarrow[family], pathNode[family])
		p.useService(t, plan, serviceOutside[family], p.wide, pathWide[family], pod)
	}
}

// useService asks a service from the pod, checks who its backend saw, and that the answer comes from the
// service.
func (p *path) useService(t *testing.T, plan *compile.Plan, service netip.Addr, host *lab.Host, backend, want netip.Addr) {
	t.Helper()
	far, err := host.ListenPacket("udp", netip.AddrPortFrom(backend, 9).String())
	labtest.Must(t, err)
	near, err := p.pod.Dial(t.Context(), "udp", netip.AddrPortFrom(service, 53).String())
	labtest.Must(t, err, near.SetDeadline(time.Now().Add(patience)), far.SetDeadline(time.Now().Add(patience)))
	_, err = near.Write([]byte("request"))
	labtest.Must(t, err)
	buf := make([]byte, 100)
	_, from, err := far.ReadFrom(buf)
	labtest.Must(t, err)
	if got := netip.MustParseAddrPort(from.String()).Addr(); got != want {
		t.Errorf("the backend %s of %s saw %s, want %s", backend, service, got, want)
	}
	pod := netip.MustParseAddrPort(near.LocalAddr().String()).Addr()
	v := plan.Decide(compile.Flow{Source: pod, Destination: backend, Protocol: compile.UDP, DestinationPort: 9})
	if (v.Action == compile.Translate) != (want != pod) {
		t.Errorf("from %s to %s the plan says: %s", pod, backend, describe(v))
	}
	_, err = far.WriteTo([]byte("answer"), from)
	labtest.Must(t, err)
	// The socket is connected to the service: it takes no answer from anybody else.
	n, err := near.Read(buf)
	labtest.Must(t, err, near.Close(), far.Close())
	if string(buf[:n]) != "answer" {
		t.Errorf("the pod got %q from %s", buf[:n], service)
	}
}

// loadRules gives a host rules that are not ours.
func loadRules(h *lab.Host, rules string) error {
	cmd := h.Command(context.Background(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var said strings.Builder
	cmd.Stderr = &said
	if err := h.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, said.String())
	}
	return nil
}
