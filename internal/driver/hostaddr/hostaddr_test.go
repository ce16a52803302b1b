package hostaddr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

func TestMain(m *testing.M) { labtest.Main(m) }

func TestAFaultThatGoesOnIsLoggedNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute-time.Second)
		defer cancel()
		var log strings.Builder
		tries := 0
		renew(ctx, slog.New(slog.NewTextHandler(&log, nil)), func() error { tries++; return errors.New("no socket") })
		if lines := strings.Count(log.String(), "no socket"); lines != 10 || tries < 500 {
			t.Errorf("%d lines about %d tries in ten minutes", lines, tries)
		}
	})
}

func TestWatchReportsEveryChange(t *testing.T) {
	t.Parallel()
	host, peer := labtest.NewHost(t, "host"), labtest.NewHost(t, "peer")
	labtest.Must(t, lab.Link(
		lab.Port{Host: host, Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
		lab.Port{Host: peer, Name: "eth0"},
	))
	reports := make(chan []netip.Prefix, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- host.Do(func() error { // the goroutine's own thread lists and subscribes
			Watch(ctx, slog.New(slog.DiscardHandler), func(p []netip.Prefix) { reports <- p })
			return nil
		})
	}()
	want := func(prefix string, there bool) {
		t.Helper()
		deadline := time.After(5 * time.Second)
		for {
			select {
			case got := <-reports:
				if slices.Contains(got, netip.MustParsePrefix(prefix)) == there {
					return
				}
			case <-deadline:
				t.Fatalf("not reported within 5 s: %s (there: %t)", prefix, there)
			}
		}
	}
	want("192.0.2.1/24", true)
	labtest.Must(t, host.AddAddress("eth0", netip.MustParsePrefix("2001:db8::1/64")))
	want("2001:db8::1/64", true)
	labtest.Must(t, host.RemoveAddress("eth0", netip.MustParsePrefix("192.0.2.1/24")))
	want("192.0.2.1/24", false)
	// Of the link-local addresses, IPv4's alone count: NodeLocal DNSCache has one. The interface has one of IPv6's too.
	labtest.Must(t, host.AddAddress("eth0", netip.MustParsePrefix("fe80::5/64")))
	labtest.Must(t, host.AddAddress("eth0", netip.MustParsePrefix("169.254.20.10/32")))
	want("169.254.20.10/32", true)
	labtest.Must(t, host.Do(func() error {
		got, err := List()
		if slices.ContainsFunc(got, func(p netip.Prefix) bool { return p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() }) {
			t.Errorf("List holds a link-local address of IPv6: %s", got)
		}
		return err
	}))
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("still watching 5 s after the context ended")
	}
}

// linkReport is what WatchLinks reports.
type linkReport struct {
	addresses []netip.Prefix
	links     []model.Link
}

// watchLinks watches the links of a host.
func watchLinks(t *testing.T, host *lab.Host) <-chan linkReport {
	t.Helper()
	reports := make(chan linkReport, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- host.Do(func() error {
			WatchLinks(ctx, slog.New(slog.DiscardHandler), func(p []netip.Prefix, l []model.Link) { reports <- linkReport{p, l} })
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return reports
}

// next is the first report that is as wanted.
func next(t *testing.T, reports <-chan linkReport, what string, wanted func(linkReport) bool) {
	t.Helper()
	var last linkReport
	deadline := time.After(5 * time.Second)
	for {
		select {
		case last = <-reports:
			if wanted(last) {
				return
			}
		case <-deadline:
			t.Fatalf("not reported within 5 s: %s; the last report is %v", what, last)
		}
	}
}

func TestWatchLinksReportsEveryChange(t *testing.T) {
	t.Parallel()
	host, peer := labtest.NewHost(t, "host"), labtest.NewHost(t, "peer")
	labtest.Must(t, lab.Link(lab.Port{Host: host, Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}, lab.Port{Host: peer, Name: "eth0"}))
	reports := watchLinks(t, host)
	eth0 := func(r linkReport) model.Link {
		i := slices.IndexFunc(r.links, func(l model.Link) bool { return l.Name == "eth0" })
		if i < 0 {
			return model.Link{}
		}
		return r.links[i]
	}
	address := netip.MustParsePrefix("192.0.2.1/24")
	next(t, reports, "eth0", func(r linkReport) bool {
		l := eth0(r)
		return l.MTU == 1500 && slices.Equal(l.Addresses, []netip.Prefix{address}) && !l.Default4 && slices.Contains(r.addresses, address) &&
			slices.Contains(r.addresses, netip.MustParsePrefix("127.0.0.1/8"))
	})
	labtest.Must(t, host.AddAddress("eth0", netip.MustParsePrefix("2001:db8::1/64")), host.AddAddress("eth0", netip.MustParsePrefix("fe80::5/64")),
		host.AddAddress("eth0", netip.MustParsePrefix("192.0.2.2/24")))
	next(t, reports, "both families, and a second address", func(r linkReport) bool { return len(eth0(r).Addresses) == 3 })
	labtest.Must(t, host.SetMTU("eth0", 1400))
	next(t, reports, "the MTU", func(r linkReport) bool { return eth0(r).MTU == 1400 })
	labtest.Must(t, host.AddRoute(lab.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.254")}))
	next(t, reports, "the default route", func(r linkReport) bool { return eth0(r).Default4 && !eth0(r).Default6 })
	labtest.Must(t, host.AddRoute(lab.Route{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("2001:db8::fe")}))
	next(t, reports, "that of IPv6", func(r linkReport) bool { return eth0(r).Default6 })
	labtest.Must(t, host.Do(func() error {
		want, err := List()
		if got, _, err := read(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("read returns %v, %v; List %v", got, err, want)
		}
		return err
	}))
	labtest.Must(t, host.SetDown("eth0"))
	next(t, reports, "that it is down: it has its address, and no route", func(r linkReport) bool {
		return !eth0(r).Default4 && !eth0(r).Default6 && slices.Contains(eth0(r).Addresses, address)
	})
}

func TestWatchLinksIsQuietAboutPods(t *testing.T) {
	t.Parallel()
	host := labtest.NewHost(t, "host")
	labtest.Must(t, lab.Link(lab.Port{Host: host, Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}, lab.Port{Host: labtest.NewHost(t, "peer"), Name: "eth0"}))
	reads := 0
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	began, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- host.Do(func() error {
			return followLinks(ctx, func(ctx context.Context) error {
				if reads++; reads == 1 {
					close(began)
				}
				_, links, err := read(ctx)
				if len(links) > 1 && links[0].MTU == 1400 { // the mark, after all else
					cancel()
				}
				return err
			})
		})
	}()
	<-began
	pod := labtest.NewHost(t, "pod")
	for i := range 5 {
		name := fmt.Sprintf("sly%012d", i)
		labtest.Must(t, lab.Link(lab.Port{Host: host, Name: name}, lab.Port{Host: pod, Name: fmt.Sprintf("eth%d", i)}),
			host.AddRoute(lab.Route{To: netip.MustParsePrefix("10.1.0.5/32"), Dev: name}), host.SetDown(name))
	}
	labtest.Must(t, host.SetMTU("eth0", 1400))
	if err := <-done; err != nil || reads != 2 {
		t.Errorf("the links were read %d times, %v; want twice, at the start and for the MTU", reads, err)
	}
}
