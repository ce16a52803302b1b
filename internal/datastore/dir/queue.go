package dir

import (
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/waiting"
)

// maxQueued bounds the events that wait; more become one overflow, as in the kernel.
const maxQueued = 1 << 16

// eventQueue takes events off the kernel's hands while the Store is busy.
type eventQueue struct {
	ready  chan struct{}
	mu     sync.Mutex
	events []event
}

func newEventQueue() *eventQueue { return &eventQueue{ready: make(chan struct{}, 1)} }

// fill moves events to the queue until the notifier is closed.
func (q *eventQueue) fill(n *notifier) {
	buf := make([]byte, 64<<10)
	for {
		events, err := n.read(buf)
		if err != nil {
			return
		}
		q.mu.Lock()
		if len(q.events)+len(events) > maxQueued {
			events = []event{{wd: -1, mask: unix.IN_Q_OVERFLOW}}
			q.events = nil
		}
		q.events = append(q.events, events...)
		q.mu.Unlock()
		waiting.Signal(q.ready)
	}
}

// drain is what has gathered.
func (q *eventQueue) drain() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.events
	q.events = nil
	return out
}
