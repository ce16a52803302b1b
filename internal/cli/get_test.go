package cli

import (
	"strings"
	"testing"
)

// TestLongSelector: a table has the beginning of a selector, and the manifest all of it.
func TestLongSelector(t *testing.T) {
	t.Parallel()
	selector := "a in {'" + strings.Repeat("ä", 1000) + "'}"
	dir := manifests(t, strings.Replace(pools, "cidr: 10.0.0.0/8", "cidr: 10.0.0.0/8\n  nodeSelector: \""+selector+"\"", 1))
	table, _, _ := sallyport(t, dir, "", "get", "pools", "-o", "wide")
	if !strings.Contains(table, "a in {'"+strings.Repeat("ä", 50)+"...  ") {
		t.Errorf("%s", table)
	}
	if manifest, _, _ := sallyport(t, dir, "", "get", "pool", "corporate", "-o", "yaml"); !strings.Contains(manifest, selector) {
		t.Errorf("%s", manifest)
	}
}
