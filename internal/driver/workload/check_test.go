package workload

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	p := n.run(1, own4, own6)
	check := func(w Workload) error {
		ns, sock, err := p.files()
		labtest.Must(t, err, ns.Close())
		return n.driver.Check(t.Context(), w, sock)
	}
	if err := check(p.Workload); err != nil {
		t.Error(err)
	}
	otherUID, otherAddresses, otherContainer := p.Workload, p.Workload, p.Workload
	otherUID.UID, otherAddresses.Addresses, otherContainer.ContainerID = "another", p.Addresses[:1], "another"
	for _, c := range []struct {
		w    Workload
		says string
	}{{otherUID, "another"}, {otherAddresses, "addresses"}, {otherContainer, "no such device"}} {
		if err := check(c.w); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("error %v, want one about %q", err, c.says)
		}
	}
	index := func() string { return p.Device() }
	for _, c := range []struct {
		says, where, tamper, repair string
	}{
		{"adding the route to " + own4, "node", "route del " + own4, ""},
		{"adding the neighbour " + own6, "node", "neigh del " + own6 + " dev DEV", ""},
		{"setting " + index() + " up", "node", "link set DEV down", ""},
		{"default route by 169.254.1.1", "pod", "route del default", "route add default via 169.254.1.1"},
		{"default route by fe80::1", "pod", "-6 route del default", "-6 route add default via fe80::1 dev eth0"},
		{"neighbour fe80::1", "pod", "neigh del fe80::1 dev eth0", "neigh add fe80::1 lladdr ee:ee:ee:ee:ee:ee dev eth0"},
		{"address " + own6, "pod", "addr del " + own6 + " dev eth0", "addr add " + own6 + " dev eth0"},
		{"MAC address", "pod", "link set eth0 address 02:00:00:00:00:07", ""},
	} {
		host := map[string]func(...string) string{
			"node": func(args ...string) string { return in(t, n.Host, "ip", args...) },
			"pod":  func(args ...string) string { return in(t, p.Host, "ip", args...) },
		}[c.where]
		words := func(s string) []string { return strings.Fields(strings.ReplaceAll(s, "DEV", p.Device())) }
		host(words(c.tamper)...)
		if err := check(p.Workload); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, want one about %q", c.tamper, err, c.says)
		}
		if c.repair != "" {
			host(words(c.repair)...)
		}
		if _, err := n.driver.Observe(t.Context()); err != nil {
			t.Error(err)
		}
		n.apply(plan())
	}
	labtest.Must(t, n.driver.Leave(t.Context(), []string{p.Device()}))
	if err := check(p.Workload); err == nil {
		t.Error("nothing is wrong with a link that is leaving")
	}
}
