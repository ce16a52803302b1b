package ipam

import (
	"net/netip"
	"testing"
)

func TestName(t *testing.T) {
	t.Parallel()
	for cidr, want := range map[string]string{
		"10.244.1.0/26":    "4-10-244-1-0-26",
		"10.244.1.7/32":    "4-10-244-1-7-32",
		"fd00:10::40/122":  "6-fd00-0010-0000-0000-0000-0000-0000-0040-122",
		"2001:db8::ff/128": "6-2001-0db8-0000-0000-0000-0000-0000-00ff-128",
	} {
		p := netip.MustParsePrefix(cidr)
		if got := Name(p); got != want {
			t.Errorf("%s is called %s, want %s", cidr, got, want)
		}
		if got, err := ParseName(want); got != p || err != nil {
			t.Errorf("%s stands for %s, %v; want %s", want, got, err, cidr)
		}
	}
}

// FuzzParseName takes only names that Name gives, and so one for each CIDR.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"4-10-244-1-0-26", "6-fd00-0010-0000-0000-0000-0000-0000-0040-122", "", "4", "4-", "4-10-0-0-0-08", "4-010-0-0-0-8",
		"4-10-0-0-1-8", "6-10-0-0-0-8", "6--0-8", "6-0000-0000-0000-0000-0000-ffff-0a00-0000-104", "4-::1-128"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if p, err := ParseName(name); err == nil && (Name(p) != name || p != p.Masked()) {
			t.Errorf("%q is %s, which is called %q", name, p, Name(p))
		}
	})
}
