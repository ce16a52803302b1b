package nat

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// TestFound makes sure that a driver tells once what an earlier one has left, not what it made itself.
func TestFound(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	source := func(s, pool string) compile.Source {
		return compile.Source{Range: netipx.MustParseIPRange(s), Pool: pool}
	}
	was := compile.NAT{Allocation: model.PortsFullyRandom, OutInterfaces: []string{"eth*", "wan0"},
		Sources: []compile.Source{source("10.0.0.0-10.0.0.255", "a"), source("10.0.1.0-10.0.1.9", "b"), source("fd00::-fd00::ff", "c")},
		Exempt:  []netipx.IPRange{netipx.MustParseIPRange("10.0.0.0-10.255.255.255"), netipx.MustParseIPRange("fd00::-fd00::ffff")},
	}
	driver := func() *Driver {
		d, err := New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: ns.fd})
		labtest.Must(t, err)
		t.Cleanup(func() { _ = d.Close() }) // one is closed before
		return d
	}
	first := driver()
	labtest.Must(t, first.Apply(t.Context(), was))
	if r := first.Found(); r != nil {
		t.Errorf("where nothing stood it found %+v", r)
	}
	labtest.Must(t, first.Close())
	second := driver()
	labtest.Must(t, second.Apply(t.Context(), compile.NAT{Allocation: model.PortsFullyRandom}))
	want := &Ranges{Exempt: was.Exempt}
	for _, s := range was.Sources {
		want.Sources = append(want.Sources, compile.Source{Range: s.Range})
	}
	got := second.Found()
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netipx.IPRange{}), cmpopts.IgnoreUnexported(Ranges{})); diff != "" {
		t.Error(diff)
	}
	for _, other := range [][]string{nil, {"eth*"}, {"eth0", "wan0"}, {"eth*", "wan0", "wan1"}} {
		if got.Covers(other) {
			t.Errorf("the table that covered %q is said to have covered %q", was.OutInterfaces, other)
		}
	}
	if !got.Covers(was.OutInterfaces) {
		t.Errorf("the table is said not to have covered %q", was.OutInterfaces)
	}
	if r := second.Found(); r != nil {
		t.Errorf("it found a second time %+v", r)
	}
}

// TestTranslates asks what stands in the kernel, as an earlier driver has left it.
func TestTranslates(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	driver := func() *Driver {
		d, err := New(nftables.Options{Log: slog.New(slog.DiscardHandler), NetNS: ns.fd})
		labtest.Must(t, err)
		t.Cleanup(func() { _ = d.Close() }) // one is closed before
		return d
	}
	with := compile.NAT{Allocation: model.PortsFullyRandom, Sources: []compile.Source{{Range: netipx.MustParseIPRange("fd00::-fd00::ff"), Pool: "a"}}}
	for _, tc := range []struct {
		apply *compile.NAT
		want  bool
	}{{nil, false}, {&with, true}, {&compile.NAT{Allocation: model.PortsFullyRandom}, false}} {
		if tc.apply != nil {
			d := driver()
			labtest.Must(t, d.Apply(t.Context(), *tc.apply))
			labtest.Must(t, d.Close())
		}
		if got, err := driver().Translates(t.Context()); got != tc.want || err != nil {
			t.Errorf("after %+v it translates: %v, %v", tc.apply, got, err)
		}
	}
}
