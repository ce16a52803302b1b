package podlab_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/cli/podlab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// TestDemo asks from every machine before anything translates: all get an answer, unless the internet would
// need a way to what is private.
func TestDemo(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	d, err := podlab.NewDemo(t.Context())
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, d.Close()) })

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	machines := []*podlab.Machine{d.Private, d.Public, d.Second, d.Internet, d.Corporate}
	for _, from := range machines {
		for _, to := range machines {
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
	overheard(t, d)
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, dst := range []netip.Addr{d.Internet.IPv4, d.Internet.IPv6} {
		for _, from := range []*podlab.Machine{d.Private, d.Second} {
			if saw, err := d.Ask(ctx, from, dst); err == nil {
				t.Errorf("the internet answered the %s, seen as %s", from.Name(), saw)
			}
		}
	}
}

// overheard looks at what pods of two nodes say to each other: it goes by the overlay alone. What a pod says to a host outside
// does not.
func overheard(t *testing.T, d *podlab.Demo) {
	t.Helper()
	for family := range 2 {
		of := func(m *podlab.Machine) netip.Addr { return []netip.Addr{m.IPv4, m.IPv6}[family] }
		there := podlab.Frame{From: of(d.Nodes[0]), To: of(d.Nodes[1]), Port: model.VXLANPort, VNI: model.DefaultVXLANVNI, InnerFrom: of(d.Private), InnerTo: of(d.Second)}
		back := podlab.Frame{From: there.To, To: there.From, Port: there.Port, VNI: there.VNI, InnerFrom: there.InnerTo, InnerTo: there.InnerFrom}
		frames, open, err := d.Overheard(of(d.Private), of(d.Second), func() error {
			_, err := d.Ask(t.Context(), d.Private, of(d.Second))
			return err
		})
		if err != nil || !slices.Equal(frames, []podlab.Frame{there, back}) || open != 0 {
			t.Errorf("between the nodes there were %v, and %d packets outside of VXLAN (%v); want %v", frames, open, err, []podlab.Frame{there, back})
		}
		frames, open, err = d.Overheard(of(d.Private), of(d.Corporate), func() error {
			_, err := d.Ask(t.Context(), d.Private, of(d.Corporate))
			return err
		})
		if err != nil || len(frames) != 0 || open == 0 {
			t.Errorf("towards corporate there were %v, and %d packets outside of VXLAN (%v)", frames, open, err)
		}
	}
}
