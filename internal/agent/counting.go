package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/driver/nat"
)

// countTimeout bounds one reading of what the kernel has counted.
const countTimeout = 30 * time.Second

// errCountsOld says that counts are not those of this moment.
var errCountsOld = errors.New("the kernel's counters take long to read, or a change is under way: they are as last read; ask again later")

// counts are what the kernel has counted.
type counts struct {
	pools   map[string]nat.Counter
	dropped nat.Dropped
}

// counting reads what the kernel has counted for all who ask, one reading at a time. A huge table takes long to
// read, and a change that is under way holds a reading up: who asks waits no longer than the own context
// says, and the reading goes on for the next one.
type counting struct {
	read  func(context.Context) (counts, error)
	asked chan chan<- error
	ended chan struct{} // closed when run ends

	mu   sync.Mutex
	last counts
}

func newCounting(read func(context.Context) (counts, error)) *counting {
	return &counting{read: read, asked: make(chan chan<- error), ended: make(chan struct{})}
}

// run reads for those who ask, until the context ends. It is called once.
func (c *counting) run(ctx context.Context) {
	defer close(c.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case answer := <-c.asked:
			answer <- c.readOnce(ctx)
		}
	}
}

func (c *counting) readOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	now, err := c.read(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = now // with an error, what was read last
	return err
}

// get is what the kernel has counted; with an error, what was read last.
func (c *counting) get(ctx context.Context) (counts, error) {
	answer := make(chan error, 1)
	err := errCountsOld
	select {
	case c.asked <- answer:
		select {
		case err = <-answer:
		case <-ctx.Done():
		}
	case <-c.ended:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, err
}
