package route

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TestOverlayIsNotTranslated has pods talk by the overlay, and to an address outside, on nodes that translate them.
func TestOverlayIsNotTranslated(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeAlways)
	for _, p := range c.snapshot.Pools {
		p.NATOutgoing = true
	}
	c.applyAll()
	var rules []*nat.Driver
	for _, n := range c.nodes {
		d, err := nat.New(nftables.Options{NetNS: n.FD(), Log: slog.New(slog.DiscardHandler)})
		labtest.Must(t, err)
		t.Cleanup(func() { _ = d.Close() })
		labtest.Must(t, d.Apply(t.Context(), compile.Compile(c.snapshot, n.local).NAT))
		rules = append(rules, d)
	}
	c.mustReach()
	for i, outside := range addrs("192.0.2.254", "2001:db8:1::fe") {
		if seen, err := c.reach(c.nodes[0].pod, c.router, outside); err != nil || seen != c.nodes[0].local.Interfaces[i].Addr() {
			t.Errorf("outside, the pod of a is seen as %s, %v", seen, err)
		}
	}
	for i, d := range rules {
		counters, err := d.Counters(t.Context())
		labtest.Must(t, err)
		want := uint64(0)
		if i == 0 { // one connection to the outside in each family
			want = 1
		}
		for pool, n := range counters {
			if n.Connections != want {
				t.Errorf("node %d has translated %d connections of pool %s, want %d", i, n.Connections, pool, want)
			}
		}
		dropped, err := d.Dropped(t.Context())
		labtest.Must(t, err)
		if dropped != (nat.Dropped{}) {
			t.Errorf("node %d has dropped %+v", i, dropped)
		}
	}
}

// TestPacketsOfTheWholeMTU sends packets as large as pods may by the overlay. On the way none is taken apart: the nodes would have to
// put it together again.
func TestPacketsOfTheWholeMTU(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeAlways)
	c.applyAll()
	mtu := compile.Compile(c.snapshot, c.nodes[0].local).Workloads.MTU
	for _, v6 := range []bool{false, true} {
		to := podOf(2, v6)
		labtest.Must(t, c.nodes[0].pod.SetMTU("eth0", mtu))
		got := make(chan int, 1)
		in, err := c.nodes[2].pod.ListenPacket("udp", "["+to.String()+"]:5000")
		labtest.Must(t, err, in.SetReadDeadline(time.Now().Add(5*time.Second)))
		go func() {
			buf := make([]byte, 2*mtu)
			n, _, _ := in.ReadFrom(buf)
			got <- n
		}()
		headers := 28
		if v6 {
			headers = 48
		}
		out, err := c.nodes[0].pod.Dial(t.Context(), "udp", "["+to.String()+"]:5000")
		labtest.Must(t, err)
		_, err = out.Write(make([]byte, mtu-headers))
		labtest.Must(t, err)
		if n := <-got; n != mtu-headers {
			t.Errorf("%d bytes came, want %d", n, mtu-headers)
		}
		_, _ = in.Close(), out.Close()
		for name, fragments := range map[string]string{"snmp": "FragCreates", "snmp6": "Ip6FragCreates"} {
			var counters []byte
			labtest.Must(t, c.nodes[0].Do(func() (err error) { counters, err = os.ReadFile("/proc/thread-self/net/" + name); return err }))
			if n := counter(t, string(counters), fragments); n != "0" {
				t.Errorf("node a has made %s fragments (%s)", n, fragments)
			}
		}
	}
}

// counter finds a counter in /proc/net/snmp, which has names and values on two lines, or in snmp6, which has each on its own.
func counter(t *testing.T, file, name string) string {
	t.Helper()
	lines := strings.Split(file, "\n")
	for i, line := range lines {
		fields := strings.Fields(line)
		at := slices.Index(fields, name)
		switch {
		case at == 0 && len(fields) == 2:
			return fields[1]
		case at > 0:
			return strings.Fields(lines[i+1])[at]
		}
	}
	t.Fatalf("no counter %s", name)
	return ""
}
