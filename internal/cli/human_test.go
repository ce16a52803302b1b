package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSafeText(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"pool\tä 漢\n":           "pool\tä 漢\n",
		"a\x1b[2Jb\rc\x00\x7f":  `a\u001b[2Jb\u000dc\u0000\u007f`,
		"a\u009b31mb":           `a\u009b31mb`,
		"a\u202eb\u2066c\u200f": `a\u202eb\u2066c\u200f`,
		"a\xffb":                `a\xffb`,
		"a\u2028b":              `a\u2028b`,
	} {
		if got := string(safe([]byte(in))); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// TestHostileTextDoesNotReachTheTerminal puts escapes into a field's name and a value.
func TestHostileTextDoesNotReachTheTerminal(t *testing.T) {
	t.Parallel()
	hostile := strings.Replace(pools, "natOutgoing: true", `"nat\e]0;owned\a\u202E\nforged: fault": true`, 1)
	dir := manifests(t, hostile)
	for _, args := range [][]string{{"get", "pools"}, {"validate", "-f", dir}, {"apply", "-f", dir}, {"explain", "10.0.0.1", "192.0.2.1"}} {
		out, errs, _ := sallyport(t, dir, "", args...)
		if strings.ContainsAny(out+errs, "\x1b\a\u202e") || !strings.Contains(out+errs, `\u001b]0;owned`) || strings.Contains(out+errs, "\nforged") {
			t.Errorf("%v: %q, %q", args, out, errs)
		}
	}
	out, _, _ := sallyport(t, dir, "", "validate", "-f", dir, "-o", "json")
	if faults := decoded[[]validateFault](t, out); len(faults) != 1 || !strings.Contains(faults[0].Field, "\x1b]0;owned\a\u202e\nforged") || !json.Valid([]byte(out)) {
		t.Errorf("as JSON: %q", out)
	}
}
