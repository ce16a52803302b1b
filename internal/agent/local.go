package agent

import (
	"reflect"
	"sync"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// local is what the node knows of itself, put together from those who know a part of it.
type local struct {
	loop *reconcile.Loop

	mu   sync.Mutex
	now  model.Local
	sent *model.Local // what the loop has; nil before the interfaces are known
}

// set changes a part of it, and hands it on once the interfaces are known.
func (l *local) set(change func(*model.Local)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.now)
	if l.now.Interfaces == nil || l.sent != nil && reflect.DeepEqual(*l.sent, l.now) {
		return
	}
	now := l.now
	l.sent = &now
	l.loop.SetLocal(now)
}

func newLocal(loop *reconcile.Loop, node string, network bool) *local {
	return &local{loop: loop, now: model.Local{Name: node, Network: network}}
}
