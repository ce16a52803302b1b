package hostaddr

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
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
