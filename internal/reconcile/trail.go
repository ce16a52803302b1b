package reconcile

import (
	"sync"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/waiting"
)

// trail hands the plans that stand in the kernel from one driver to one that follows it.
type trail struct {
	driver Follower
	index  int           // of the driver
	wake   chan struct{} // holds one token when there is something new

	mu   sync.Mutex
	plan *compile.Plan
}

func (t *trail) stands(plan *compile.Plan, repaired bool) {
	t.driver.Stands(plan, repaired)
	t.mu.Lock()
	t.plan = plan
	t.mu.Unlock()
	waiting.Signal(t.wake)
}

// take is the newest plan that stands.
func (t *trail) take() *compile.Plan {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.plan
}
