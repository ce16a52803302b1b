package dir

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/semaphore"

	"github.com/sallyport/sallyport/internal/model"
)

// TestLargeFilesAreReadOneByOne: what decoding takes must not grow with the number of cores.
func TestLargeFilesAreReadOneByOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &Store{path: dir, index: newIndex(), decoding: semaphore.NewWeighted(decodedAtOnce)}
	var now, most atomic.Int64
	s.validator = validatorFunc(func() {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		for range 100 {
			runtime.Gosched()
		}
	})
	var all sync.WaitGroup
	for i := range 8 {
		name := fmt.Sprintf("%d.yaml", i)
		var text strings.Builder
		for j := 0; text.Len() < 1<<20; j++ {
			text.WriteString("---\n" + pool(fmt.Sprintf("p%d-%d", i, j), "10.1.0.0/24") + "# " + strings.Repeat("x", 4000) + "\n")
		}
		write(t, filepath.Join(dir, name), text.String())
		all.Go(func() {
			if f, err := s.readFile(name, true); err != nil || len(f.objects) == 0 {
				t.Error(f, err)
			}
		})
	}
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d large files were decoded at once", most.Load())
	}
}

// validatorFunc is called for each object, and finds nothing.
type validatorFunc func()

func (f validatorFunc) Create(map[string]any) []model.Fault      { f(); return nil }
func (f validatorFunc) Update(_, _ map[string]any) []model.Fault { f(); return nil }
