package cli

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/nftables"
)

func TestPrintPreview(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		preview nftables.Preview
		want    string
	}{
		{nftables.Preview{Table: "inet t", Equal: true, Present: true}, "table inet t holds what the manifests say: there is nothing to change\n"},
		{nftables.Preview{Table: "inet t", Sets: []nftables.SetPreview{{Name: "s", New: true, Add: 7, AddFirst: []string{"10.0.0.0/8", "fd00::1-fd00::3"}}}}, `table inet t would be made:
  set s (new): ranges -0 +7
    + 10.0.0.0/8
    + fd00::1-fd00::3
    + and 5 more
Nothing was changed.
`},
		{nftables.Preview{Table: "inet t", Present: true, Chains: []nftables.ChainPreview{
			{Name: "old", Gone: true, Remove: []string{"drop"}},
			{Name: "hook", Gone: true, New: true, Remove: []string{"a", "b"}, Add: []string{"c"}},
		}}, `table inet t would be changed, in one transaction:
  chain old (gone)
    - drop
  chain hook (replaced)
    - a
    - b
    + c
Nothing was changed.
`},
		{nftables.Preview{Table: "inet t", Present: true, Replaced: true},
			"table inet t would be deleted and made again, in one transaction, since it is dormant or holds strange things. What differs:\nNothing was changed.\n"},
	} {
		var out strings.Builder
		if err := printPreview(&out, &c.preview); err != nil {
			t.Error(err)
		}
		want(t, "preview", out.String(), c.want)
	}
}

func TestDryRunRefuses(t *testing.T) {
	t.Parallel()
	dir := manifests(t, strings.Replace(pools, "10.0.0.0/8", "10.0.0.1/8", 1))
	_, errs, code := sallyport(t, dir, "", "run", "--dry-run")
	if code != 1 || !strings.Contains(errs, "pools.yaml:7") || !strings.Contains(errs, "fixed") {
		t.Errorf("faulty manifests: exit code %d, %s", code, errs)
	}
	_, errs, code = sallyport(t, dir, "", "run", "-o", "json")
	if code != 1 || !strings.Contains(errs, "--dry-run") {
		t.Errorf("an output format without --dry-run: exit code %d, %s", code, errs)
	}
}
