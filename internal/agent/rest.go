package agent

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/waiting"
)

// An agent has nothing to do nearly all the time, and its node has better use for memory. So the agent lets a quarter
// as much garbage gather as what lives, where Go would let as much again; and gives memory back while it rests. But a
// collection costs more CPU time than a change of rules, so from its first rest garbageLeast may always gather, and less
// than spareLeast is not given back. And to check many objects in a row leaves much garbage and little that lives: there
// garbageMany may gather, until the next rest, since pods wait for the rules.
const (
	garbagePercent = 25
	garbageLeast   = 4 << 20  // bytes
	garbageMany    = 16 << 20 // bytes
	manyObjects    = 30
	spareLeast     = 2 << 20 // bytes
	restAfter      = 5 * time.Second
)

// thrift makes this process collect its garbage as above, unless GOGC is set.
type thrift struct {
	before  int           // the GOGC of before
	least   atomic.Uint64 // what may always gather, in bytes
	checked atomic.Int64  // objects since the last rest
	mu      sync.Mutex    // held while GOGC is set
	percent int           // under mu: the GOGC of now
	stop    func()        // nil: GOGC is set
}

func startThrift() *thrift {
	t := &thrift{}
	if os.Getenv("GOGC") == "" {
		t.before = debug.SetGCPercent(garbagePercent)
		t.percent = garbagePercent
		t.stop = afterEachCollection(t.adjust)
	}
	return t
}

// adjust sets GOGC by what lives, where that changes it: to set it stops the world for a moment.
func (t *thrift) adjust() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if percent := percentFor(readMemory().live, t.least.Load()); percent != t.percent {
		t.percent = percent
		debug.SetGCPercent(percent)
	}
}

// validator is one that lets more garbage gather once it has checked many objects.
func (t *thrift) validator(v manifest.Validator) manifest.Validator { return counted{v, t} }

type counted struct {
	manifest.Validator
	thrift *thrift
}

func (c counted) Create(obj map[string]any) []model.Fault {
	if c.thrift.checked.Add(1) == manyObjects && c.thrift.stop != nil {
		c.thrift.least.Store(garbageMany)
		c.thrift.adjust()
	}
	return c.Validator.Create(obj)
}

// rested gives free memory back to the kernel, where that is worth its cost: it takes a collection.
func (t *thrift) rested() {
	first := t.least.Swap(garbageLeast) == 0
	t.checked.Store(0)
	if t.stop != nil {
		t.adjust()
	}
	if first || readMemory().spare >= spareLeast {
		debug.FreeOSMemory()
	}
}

// end undoes it.
func (t *thrift) end() {
	if t.stop != nil {
		t.stop()
		debug.SetGCPercent(t.before)
	}
}

// percentFor is the GOGC by which garbagePercent of what lives may gather as garbage, or as many bytes as least.
func percentFor(live, least uint64) int {
	return max(garbagePercent, int(100*least/max(live, least/4, 1)))
}

// afterEachCollection calls f after each garbage collection, until stop is called.
func afterEachCollection(f func()) (stop func()) {
	type sentinel struct{ _ *byte } // with a pointer, so that it shares no memory with other small objects
	var stopped atomic.Bool
	var arm func()
	arm = func() {
		runtime.AddCleanup(new(sentinel), func(struct{}) {
			if !stopped.Load() {
				f()
				arm()
			}
		}, struct{}{})
	}
	arm()
	return func() { stopped.Store(true) }
}

// memory is how this process uses memory, in bytes.
type memory struct {
	live  uint64 // what the last collection found in use
	spare uint64 // what could be given back: garbage since then, and free memory that the kernel has not got back
}

func readMemory() memory {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(s)
	live, objects, free := s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()
	return memory{live: live, spare: objects - min(live, objects) + free}
}

// rest calls free each time that news had come and then none did for a while, until the context ends. The first news
// is the start. News that come while it waits do not wake it.
func rest(ctx context.Context, news func() <-chan struct{}, after time.Duration, free func()) {
	for {
		changed := news()
		waiting.Sleep(ctx, nil, after)
		if ctx.Err() != nil {
			return
		}
		select {
		case <-changed:
			continue
		default:
		}
		free()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
