package workload

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/cni"
)

func sampleAlias() alias {
	return alias{state: held, mac: mac{2, 0, 0, 0, 0, 1}, Workload: Workload{Network: cni.NetworkHash("net"), ContainerID: strings.Repeat("a", 64), Interface: "eth0",
		UID: "00000000-0000-0000-0000-000000000001", Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("2001:db8::2")}}}
}

func TestAliasIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*alias){
		func(*alias) {},
		func(a *alias) { a.UID = "" },
		func(a *alias) { a.state = making },
		func(a *alias) { a.state = leaving },
		func(a *alias) { a.Addresses = a.Addresses[1:] },
		func(a *alias) { // the longest addresses that two families have
			a.Interface = "eth012345678901"
			a.Addresses = []netip.Addr{netip.MustParseAddr("100.100.100.100"), netip.MustParseAddr("2001:1db8:1111:2222:3333:4444:5555:6666")}
		},
	} {
		a := sampleAlias()
		change(&a)
		s, err := a.text()
		if err != nil {
			t.Fatal(err)
		}
		read, err := parseAlias(s)
		if err != nil || !reflect.DeepEqual(*read, a) {
			t.Errorf("%q is read as %+v, %v", s, read, err)
		}
	}
}

func TestAliasThatCannotBeKept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(*alias)
		says   string
	}{
		{func(a *alias) { a.ContainerID = strings.Repeat("a", 200) }, "255"},
		{func(a *alias) {
			for i := range 20 {
				a.Addresses = append(a.Addresses, netip.MustParseAddr(fmt.Sprintf("2001:db8:1111:2222:3333:4444:5555:%d", i+1)))
			}
		}, "255"},
		{func(a *alias) { a.ContainerID = "a b" }, "container id"},
		{func(a *alias) { a.ContainerID = "" }, "container id"},
		{func(a *alias) { a.ContainerID = "-" }, "container id"},
		{func(a *alias) { a.UID = "ä" }, "UID"},
		{func(a *alias) { a.UID = "-" }, "UID"},
		{func(a *alias) { a.Interface = "0123456789abcdef" }, "interface"},
		{func(a *alias) { a.Interface = ".." }, "interface"},
		{func(a *alias) { a.Interface = "a/b" }, "interface"},
		{func(a *alias) { a.Addresses = nil }, "no address"},
		{func(a *alias) { a.Addresses[1] = a.Addresses[0] }, "twice"},
		{func(a *alias) { a.Addresses[0] = netip.MustParseAddr("127.0.0.1") }, "127.0.0.1"},
		{func(a *alias) { a.Addresses[0] = netip.MustParseAddr("fe80::1%eth0") }, "zone"},
		{func(a *alias) { a.Addresses[0] = netip.MustParseAddr("::ffff:10.0.0.1") }, "unicast"},
		{func(a *alias) { a.Addresses[0] = netip.Addr{} }, "invalid"},
	} {
		a := sampleAlias()
		c.change(&a)
		if s, err := a.text(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: error %v, want one about %q", s, err, c.says)
		}
	}
}

func TestForeignAliases(t *testing.T) {
	t.Parallel()
	a := sampleAlias()
	s, err := a.text()
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{"", "eth0", s + " ", " " + s, strings.Replace(s, "sly1", "sly2", 1), strings.Replace(s, " held ", " kept ", 1),
		strings.Replace(s, "10.1.0.2", "10.1.0.02", 1), strings.Replace(s, "2001:db8::2", "2001:DB8::2", 1), strings.Replace(s, "2001:db8::2", "2001:db8:0::2", 1),
		strings.Replace(s, "020000000001", "02000000000A", 1), strings.Replace(s, "020000000001", "0200000000", 1), s + ",10.0.0.1%1"} {
		if a, err := parseAlias(other); err == nil {
			t.Errorf("%q is taken for %+v", other, a)
		}
	}
	d := device{name: a.Device(), kind: kindVeth, alias: s}
	if d.ours() == nil {
		t.Error("a device of ours is not known")
	}
	for _, change := range []func(*device){
		func(d *device) { d.kind = "dummy" },
		func(d *device) { d.name = "slyffffffffffff" },
		func(d *device) { d.name = "eth0" },
		func(d *device) { d.alias = "" },
	} {
		other := d
		change(&other)
		if other.ours() != nil {
			t.Errorf("%+v is taken for one of ours", other)
		}
	}
}

func FuzzAlias(f *testing.F) {
	a := sampleAlias()
	s, err := a.text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s)
	f.Add(strings.Replace(s, " held ", " making ", 1))
	f.Add("sly1 held - - - - 000000000000 0.0.0.0")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAlias(s)
		if err != nil {
			return
		}
		again, err := a.text()
		if err != nil || again != s {
			t.Fatalf("%q is written as %q, %v", s, again, err)
		}
		if len(s) > aliasMost || a.check() != nil {
			t.Fatalf("%q was taken", s)
		}
	})
}
