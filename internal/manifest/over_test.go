package manifest

import (
	"fmt"
	"strings"
	"testing"
)

// TestAFileThatHoldsTooMuch is read no further than it takes to say so, and declares nothing then.
func TestAFileThatHoldsTooMuch(t *testing.T) {
	t.Parallel()
	pool := func(i int, more string) string {
		return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p%d}\nspec: {cidr: 10.%d.%d.0/24%s}\n", i, i>>8, i&255, more)
	}
	long := strings.Repeat("x", 1<<20)
	alias := "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a, annotations: {a: &a " + long + ", b: *a, c: *a, d: *a}}\nspec: {cidr: 10.0.0.0/24}\n"
	for _, tc := range []struct {
		what, text, want string
	}{
		{"faulty documents", pool(0, "") + strings.Repeat("---\n[]\n", maxFaults+1), "has more than 1000 faults"},
		{"faulty items", pool(0, "") + "---\nkind: List\napiVersion: v1\nitems:\n" + strings.Repeat("- a\n", 1<<16), "has more than 1000 faults"},
		{"faulty items of a long List", pool(0, "") + "---\nkind: List\napiVersion: v1\nitems:\n" + strings.Repeat("- a\n", 1<<19), "has more than 1000 faults"},
		{"faulty objects", strings.Repeat("---\n"+pool(0, ", natOutgoing: 1"), maxFaults+1), "has more than 1000 faults"},
		{"aliases", strings.Repeat("---\n"+alias, 15) + "---\n" + pool(1, "") + "---\n[]\n", ""},
		{"aliases over and over", strings.Repeat("---\n"+alias, 18), "stands for more than 67108864 bytes"},
	} {
		p := Parse("f.yaml", []byte(tc.text))
		if tc.what == "faulty objects" {
			p = Check("f.yaml", []byte(tc.text), nil, validator(), func(Key) *Object { return nil })
		}
		last := p.Faults[len(p.Faults)-1]
		if tc.want == "" {
			if len(p.Objects) == 0 || len(p.Faults) != 1 {
				t.Errorf("%s: %d objects and %d faults", tc.what, len(p.Objects), len(p.Faults))
			}
			continue
		}
		if len(p.Objects) > 0 || len(p.Faults) > shownFaults+1 || last.Kind != "" || last.Line != 0 || !strings.Contains(last.Message, tc.want) {
			t.Errorf("%s: %d objects and %d faults, of which the last is %v", tc.what, len(p.Objects), len(p.Faults), last)
		}
	}
}
