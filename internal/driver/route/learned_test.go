package route

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// kept is a node with two routers and a keeper that runs.
type kept struct {
	*node
	t      *testing.T
	keeper *Keeper
}

func newKept(t *testing.T) *kept {
	t.Helper()
	k := &kept{t: t, node: &node{Host: labtest.NewHost(t, "node")}}
	for i, name := range []string{"up0", "up1"} {
		router := labtest.NewHost(t, name)
		labtest.Must(t, lab.Link(lab.Port{Host: k.Host, Name: name, Addresses: prefixes(fmt.Sprintf("192.0.%d.1/24", i), fmt.Sprintf("2001:db8:%d::1/64", i))},
			lab.Port{Host: router, Name: "eth0", Addresses: prefixes(fmt.Sprintf("192.0.%d.254/24", i), fmt.Sprintf("2001:db8:%d::fe/64", i))}))
	}
	var err error
	k.keeper, err = NewKeeper(Options{NetNS: k.FD(), Log: slog.New(slog.DiscardHandler)})
	labtest.Must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.keeper.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		labtest.Must(t, k.keeper.Close())
	})
	return k
}

// has waits until the routes of protocol 115 have all of some texts, and none with an exclamation mark before it.
func (k *kept) has(texts ...string) {
	k.t.Helper()
	labtest.Eventually(k.t, func() (instead string) {
		out := k.ip(k.t, "-4", "-o", "route", "show", "proto", "115") + k.ip(k.t, "-6", "-o", "route", "show", "proto", "115")
		for _, text := range texts {
			want, not := strings.CutPrefix(text, "!")
			if strings.Contains(out, want) == not {
				instead = fmt.Sprintf("%q (%v) in\n%s", want, !not, out)
			}
		}
		return instead
	})
}

func far4(to string, hops ...string) Learned {
	return Learned{Prefix: netip.MustParsePrefix(to), Hops: addrs(hops...)}
}

// TestOverruledRoutesAreNamed beside a route of another program, one of the kernel's own, and one of a block.
func TestOverruledRoutesAreNamed(t *testing.T) {
	t.Parallel()
	k := newKept(t)
	k.ip(t, "route", "add", "203.0.113.0/24", "via", "192.0.0.254", "proto", "static")
	k.ip(t, "route", "add", "10.9.0.0/26", "via", "192.0.0.254", "proto", "115")
	k.ip(t, "-6", "route", "add", "2001:db8:9::/48", "via", "2001:db8:0::fe", "proto", "bird", "metric", "7")
	k.ip(t, "route", "add", "unreachable", "10.9.0.64/26", "proto", "115", "metric", fmt.Sprint(metricUnreachable))
	if out, err := k.keeper.Overruled(t.Context(), 9); err != nil || out != nil {
		t.Errorf("without routes: %v, %v", out, err)
	}
	k.keeper.Set([]Learned{far4("10.9.0.0/26", "192.0.1.254"), far4("10.9.0.64/26", "192.0.1.254"), far4("10.9.0.128/26", "192.0.1.254"), far4("192.0.0.0/24", "192.0.1.254"), far4("203.0.113.0/24", "192.0.1.254"),
		far4("2001:db8:9::/48", "2001:db8:1::fe")}, true)
	k.has("10.9.0.128/26 via 192.0.1.254")
	out, err := k.keeper.Overruled(t.Context(), 9)
	labtest.Must(t, err)
	got := fmt.Sprint(out)
	for _, want := range []string{"{10.9.0.0/26 the kernel prefers the route that the block of a node has}", "{192.0.0.0/24 the kernel prefers the subnet of an interface of this node}",
		"{203.0.113.0/24 the kernel prefers the route of another program (protocol 4, metric 0)}", "{2001:db8:9::/48 the kernel prefers the route of another program (protocol 12, metric 7)}"} {
		if !strings.Contains(got, want) {
			t.Errorf("nothing of %s in %s", want, got)
		}
	}
	if len(out) != 4 {
		t.Errorf("there are %s", got)
	}
	if few, err := k.keeper.Overruled(t.Context(), 2); err != nil || len(few) != 2 {
		t.Errorf("of two: %v, %v", few, err)
	}
}

func TestLearnedRoutesStand(t *testing.T) {
	t.Parallel()
	k := newKept(t)
	k.ip(t, "route", "add", "203.0.113.0/24", "via", "192.0.0.254", "proto", "static")
	k.ip(t, "route", "add", "198.18.0.0/24", "via", "192.0.0.254", "proto", "115", "metric", fmt.Sprint(metricLearned)) // of an agent before this one
	k.keeper.Set([]Learned{far4("198.51.100.0/24", "192.0.0.254")}, false)
	k.has("198.51.100.0/24 via 192.0.0.254 dev up0", "198.18.0.0/24 via")
	held, err := k.keeper.Held(t.Context())
	labtest.Must(t, err)
	if !held {
		t.Error("none are held")
	}
	k.keeper.Set([]Learned{
		far4("10.9.0.0/16", "192.0.0.254", "192.0.1.254"),
		far4("10.10.0.0/16", "fe80::fe%up0"),
		far4("10.11.0.0/16", "fe80::fe%up0", "fe80::fe%up1"),
		far4("203.0.113.0/24", "192.0.1.254"),
		far4("2001:db8:9::/48", "2001:db8::fe", "2001:db8:1::fe"),
		far4("2001:db8:a::/48", "fe80::fe%up1"),
	}, true)
	k.has("10.9.0.0/16 metric 536870912 \\	nexthop via 192.0.0.254 dev up0 weight 1 \\	nexthop via 192.0.1.254 dev up1 weight 1",
		"10.10.0.0/16 via inet6 fe80::fe dev up0", "nexthop via inet6 fe80::fe dev up1", "2001:db8:a::/48 via fe80::fe dev up1",
		"2001:db8:9::/48", "nexthop via 2001:db8:1::fe dev up1", "!198.18.0.0/24", "!198.51.100.0/24")
	if out := k.ip(t, "route", "get", "203.0.113.9"); !strings.Contains(out, "via 192.0.0.254") {
		t.Errorf("the route of others does not win: %s", out)
	}

	t.Log("the driver of plans does not touch them, nor the keeper the routes of plans")
	d, err := New(Options{NetNS: k.FD(), Log: slog.New(slog.DiscardHandler)})
	labtest.Must(t, err)
	defer d.Close()
	labtest.Must(t, k.Do(func() error {
		return d.Apply(t.Context(), compile.Routes{Routes: []*compile.Route{{CIDR: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("192.0.0.254")},
			{CIDR: netip.MustParsePrefix("10.10.0.0/16")}}})
	}))
	if out := k.ip(t, "route", "get", "10.9.0.1"); !strings.Contains(out, "via 192.0.0.254") {
		t.Errorf("to a block: %s", out)
	}
	if out := k.ip(t, "route", "get", "10.10.0.1"); !strings.Contains(out, "fe80::fe") {
		t.Errorf("to a block without another way: %s", out)
	}
	labtest.Must(t, k.Do(func() error { return d.Cleanup(t.Context()) }))
	k.has("10.9.0.0/16 metric 536870912", "10.10.0.0/16 via")

	t.Log("what others remove comes back, and cleanup removes all of ours")
	k.ip(t, "route", "del", "10.10.0.0/16")
	k.has("10.10.0.0/16 via inet6 fe80::fe dev up0")
	labtest.Must(t, k.keeper.Cleanup(t.Context()))
	k.has("!proto 115", "!metric 536870912")
	if out := k.ip(t, "route"); !strings.Contains(out, "203.0.113.0/24") {
		t.Errorf("the route of others went: %s", out)
	}
}

func TestLearnedRoutesComeBackWithTheirLink(t *testing.T) {
	t.Parallel()
	k := newKept(t)
	k.keeper.Set([]Learned{far4("10.9.0.0/16", "192.0.0.254", "192.0.1.254"), far4("10.10.0.0/16", "192.0.0.254"), far4("10.11.0.0/16", "fe80::fe%up0"),
		far4("2001:db8:a::/48", "fe80::fe%up0")}, true)
	k.has("10.9.0.0/16 metric", "10.10.0.0/16", "10.11.0.0/16", "2001:db8:a::/48")
	k.ip(t, "link", "set", "up0", "down")
	k.has("10.9.0.0/16", "192.0.1.254", "!10.10.0.0/16", "!10.11.0.0/16", "!2001:db8:a::/48")
	began := time.Now()
	k.ip(t, "link", "set", "up0", "up")
	k.has("nexthop via 192.0.0.254 dev up0 weight 1", "10.10.0.0/16 via", "10.11.0.0/16 via", "2001:db8:a::/48 via")
	t.Logf("whole again %s after the link came up", time.Since(began).Round(time.Millisecond))

	t.Log("routes by an interface that is not there are said, and come with it")
	k.keeper.Set([]Learned{far4("10.12.0.0/16", "fe80::fe%later"), far4("10.13.0.0/16", "192.0.1.254", "203.0.113.1")}, true)
	k.has("10.13.0.0/16 via 192.0.1.254", "!10.12.0.0/16")
	if stands, refused := k.keeper.State(); stands != 1 || len(refused) != 2 || !strings.Contains(fmt.Sprint(refused), "there is no interface later") {
		t.Errorf("%d stand, refused are %v", stands, refused)
	}
	labtest.Must(t, lab.Link(lab.Port{Host: k.Host, Name: "later"}, lab.Port{Host: labtest.NewHost(t, "third"), Name: "eth0"}))
	k.has("10.12.0.0/16 via inet6 fe80::fe dev later")
}
