package workload

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TestRulesStandWithoutRoutes: a route in the way of one workload fails Apply, and leaves the rules standing. Rules that another
// program removes meanwhile come back with the next attempt, though no Observe comes between.
func TestRulesStandWithoutRoutes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(*node, *pod)
	}{
		{"a foreign route", func(n *node, p *pod) {
			in(n.TB, n.Host, "ip", "route", "del", p.Addresses[0].String())
			in(n.TB, n.Host, "ip", "route", "add", p.Addresses[0].String(), "dev", "uplink")
		}},
		{"two links with one address", func(n *node, p *pod) {
			a := alias{Workload: p.Workload, state: held, mac: drawMAC()}
			a.ContainerID = strings.Repeat("b", 64)
			text, err := a.text()
			labtest.Must(n, err)
			in(n.TB, n.Host, "ip", "link", "add", a.Device(), "type", "veth", "peer", "name", "other")
			in(n.TB, n.Host, "ip", "link", "set", a.Device(), "alias", text)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, Options{Unowned: true})
			p := n.run(1)
			first, newer := plan(), plan()
			newer.Nodes = append(newer.Nodes, netip.MustParseAddr("2001:db8::3"))
			c.prepare(n, p)
			n.start(Options{Unowned: true})
			if err := n.driver.RulesStand(&first); !errors.Is(err, ErrNoPlan) {
				t.Errorf("before the first Apply: %v", err)
			}
			if err := n.driver.Apply(t.Context(), first); err == nil || !strings.Contains(err.Error(), "route to 10.1.0.2") {
				t.Fatalf("error %v, want one about the route", err)
			}
			if err := n.driver.RulesStand(&first); err != nil {
				t.Errorf("with a route in the way, the rules do not stand: %v", err)
			}
			if err := n.driver.RulesStand(&newer); err == nil {
				t.Error("rules of a plan that was not applied stand")
			}
			if err := n.driver.Apply(t.Context(), newer); err == nil || n.driver.RulesStand(&newer) != nil {
				t.Errorf("newer plan: %v, and the rules: %v", err, n.driver.RulesStand(&newer))
			}

			in(t, n.Host, "nft", "delete", "table", "netdev", TableName)
			if err := n.driver.Apply(t.Context(), newer); err == nil {
				t.Error("the route is not in the way any more")
			}
			if out, err := try(t, n.Host, "nft", "list", "table", "netdev", TableName); err != nil || !strings.Contains(out, p.Device()) {
				t.Errorf("the rules are not back: %s", out)
			}
			if _, err := n.add(n.newPod(2)); err != nil {
				t.Errorf("another workload: %v", err)
			}

			in(t, n.Host, "nft", "delete", "table", "inet", TableName)
			if _, err := n.driver.Observe(t.Context()); err != nil || !errors.Is(n.driver.RulesStand(&newer), errUndone) {
				t.Errorf("rules that are gone: %v, %v", err, n.driver.RulesStand(&newer))
			}
			labtest.Must(t, n.driver.Cleanup(t.Context()))
			if err := n.driver.RulesStand(&newer); !errors.Is(err, ErrNoPlan) {
				t.Errorf("after Cleanup: %v", err)
			}
		})
	}
}

// TestRulesThatFailDoNotStand fails the transactions of each table in turn, and the reading of links, without which it is not
// known which of them need rules.
func TestRulesThatFailDoNotStand(t *testing.T) {
	t.Parallel()
	injected := errors.New("injected")
	for _, what := range []string{"netdev", "inet", "links"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			fail := new(atomic.Bool)
			wrap := func(s nfnetlink.Socket) nfnetlink.Socket {
				return &faulty{Socket: s, calls: new(atomic.Int64), fail: func(int64, bool) error {
					if fail.Load() {
						return injected
					}
					return nil
				}}
			}
			o := Options{Unowned: true}
			if what == "links" {
				o.Wrap = wrap
			}
			n := newNode(t, o)
			engine, family := &n.driver.rules.netdev, uint8(nftables.FamilyNetdev)
			if what == "inet" {
				engine, family = &n.driver.rules.inet, nftables.FamilyInet
			}
			if what != "links" {
				labtest.Must(t, (*engine).Close())
				var err error
				*engine, err = nftables.New(TableName, nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: n.FD(), Unowned: true, Family: family, Wrap: wrap})
				labtest.Must(t, err)
			}
			p := plan()
			p.Nodes = append(p.Nodes, netip.MustParseAddr("2001:db8::3"))
			fail.Store(true)
			if err := n.driver.Apply(t.Context(), p); !errors.Is(err, injected) {
				t.Fatalf("Apply: %v", err)
			}
			if err := n.driver.RulesStand(&p); !errors.Is(err, injected) {
				t.Errorf("the rules that failed: %v", err)
			}
			fail.Store(false)
			labtest.Must(t, n.driver.Apply(t.Context(), p), n.driver.RulesStand(&p))
		})
	}
}
