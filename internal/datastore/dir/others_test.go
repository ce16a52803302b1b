package dir

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
)

// TestOthers: only what was read and would be seen to change, and declares nothing of what is asked for.
func TestOthers(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	far := filepath.Join(base, "far.yaml")
	write(t, far, pool("far", "10.9.0.0/24"))
	h := newHarness(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24"), "b.yaml": pool("b", "10.2.0.0/24"), "gone.yaml": pool("c", "10.3.0.0/24")})
	must(t, os.Symlink(far, filepath.Join(h.dir, "link.yaml")))
	h.stop()
	s := newStepper(h)
	s.after(0)
	for name, f := range s.index.files {
		f.racy = name == "b.yaml"
	}
	must(t, os.Remove(filepath.Join(h.dir, "gone.yaml")))
	s.leave("gone.yaml", s.now)
	names := func(of ...string) []string {
		var keys []Key
		for _, n := range of {
			keys = append(keys, Key{Kind: model.KindIPPool, Name: n})
		}
		return slices.Sorted(maps.Keys(s.others(keys)))
	}
	if got := names(); !slices.Equal(got, []string{"a.yaml"}) {
		t.Errorf("of nothing: %v", got)
	}
	s.index.files["b.yaml"].racy = false
	if got := names("a", "zz"); !slices.Equal(got, []string{"b.yaml"}) {
		t.Errorf("of a: %v", got)
	}
	write(t, filepath.Join(h.dir, "b.yaml"), "[")
	s.after(rescanPeriod)
	if got := names(); slices.Contains(got, "b.yaml") {
		t.Errorf("with a fault: %v", got)
	}
}
