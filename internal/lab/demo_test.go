package lab_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestDemo asks from every machine before anything translates: all get an answer, unless the internet would
// need a way to what is private.
func TestDemo(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	d, err := lab.NewDemo()
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, d.Close()) })

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, from := range []*lab.Machine{d.Private, d.Public, d.Internet, d.Corporate} {
		for _, to := range []*lab.Machine{d.Private, d.Public, d.Internet, d.Corporate} {
			noWay := from == d.Internet && to != d.Public || to == d.Internet && from != d.Public
			if from == to || noWay {
				continue
			}
			for family, want := range []netip.Addr{from.IPv4, from.IPv6} {
				dst := []netip.Addr{to.IPv4, to.IPv6}[family]
				saw, err := d.Ask(ctx, from, dst)
				if err != nil || saw != want {
					t.Errorf("%s to %s (%s): saw %s (%v), want %s", from.Name(), to.Name(), dst, saw, err, want)
				}
			}
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, dst := range []netip.Addr{d.Internet.IPv4, d.Internet.IPv6} {
		if saw, err := d.Ask(ctx, d.Private, dst); err == nil {
			t.Errorf("the internet answered the private pod, seen as %s", saw)
		}
	}
}
