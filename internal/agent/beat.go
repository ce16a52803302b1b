package agent

import (
	"context"
	"time"

	"github.com/sallyport/sallyport/internal/waiting"
)

// HeartbeatEvery is the time between two renewals of the node's Lease, give or take a quarter. The controller calls a node unknown
// after 2 minutes without: that is two renewals that failed, each tried again after half the time.
const HeartbeatEvery = 40 * time.Second

// beat says in the API that this agent lives, until the context ends: it renews the node's Lease each time that the reconcile
// loop has come round. Where the loop hangs, nothing is renewed. It signals called when the controller has called the node
// unknown meanwhile, in the place of what the agent wrote.
func (c *Core) beat(ctx context.Context, to cluster, called chan<- struct{}) {
	every := c.BeatEvery
	if every == 0 {
		every = HeartbeatEvery
	}
	next := chance(every) // others may have started at the same moment
	for waiting.Sleep(ctx, nil, next) && c.Loop.Turn(ctx) == nil {
		self := c.resources.get().Self
		if self.Gone {
			self.UID = "" // a Lease of a Node that is gone would be collected each time, and this node be taken for dead
		}
		unknown, err := to.Renew(ctx, self.UID)
		if ctx.Err() != nil {
			return
		}
		if c.complaints.note(failsLease, err) {
			c.Log.Warn("the API could not be told something; it will be tried again", "what", failsLease, "error", err)
		}
		if next = every*3/4 + chance(every/2); err != nil {
			next = around(every / 2)
		}
		if unknown {
			c.Log.Warn("the controller had called this node unknown; how it stands will be written again")
			waiting.Signal(called)
		}
	}
}
