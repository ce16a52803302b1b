package dir

import (
	"runtime"
	"testing"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// TestOneObjectManyTimes: a file that declares one object again and again took time with the square of that. Not parallel:
// it counts what the process allocates.
func TestOneObjectManyTimes(t *testing.T) {
	f := &file{}
	for range 4000 {
		f.objects = append(f.objects, &object{Object: manifest.Object{Key: Key{Kind: model.KindIPPool, Name: "a"}}})
	}
	x := newIndex()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	x.set("a.yaml", f)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
		t.Errorf("%d bytes were allocated for %d objects", took, len(f.objects))
	}
	if len(x.twice) != 1 || len(x.faults()) != len(f.objects)-1 {
		t.Errorf("%d objects stand twice, with %d faults", len(x.twice), len(x.faults()))
	}
}
