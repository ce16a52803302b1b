package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/text"
	"github.com/sallyport/sallyport/internal/yaml"
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

// TestNoOutputCommandsATerminal: what a terminal obeys is escaped in what programs read too, and means the same to them.
func TestNoOutputCommandsATerminal(t *testing.T) {
	t.Parallel()
	const note = "a\u001b[2J\u007f\u0085\u009b\u200f\u202e\u2066\u2028\tb"
	dir := manifests(t, strings.Replace(pools, "name: corporate", `name: corporate
  annotations: {note: "a\e[2J\x7f\N\x9b\u200f\u202e\u2066\L\tb"}`, 1))
	for _, form := range []string{"json", "yaml"} {
		out, errs, code := sallyport(t, dir, "", "get", "pool", "corporate", "-o", form)
		if code != 0 || errs != "" {
			t.Fatalf("%s: %d, %s", form, code, errs)
		}
		if strings.ContainsFunc(out, func(r rune) bool { return r != '\n' && text.Obeyed(r) }) {
			t.Errorf("%s: %q", form, out)
		}
		var read struct {
			Metadata struct{ Annotations map[string]string }
		}
		v, err := yaml.Decode([]byte(out))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := json.Marshal(v); err != nil || json.Unmarshal(data, &read) != nil || read.Metadata.Annotations["note"] != note {
			t.Errorf("%s: %v, read %q, want %q", form, err, read.Metadata.Annotations["note"], note)
		}
	}
}
