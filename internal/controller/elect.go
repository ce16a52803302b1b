package controller

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"

	"github.com/sallyport/sallyport/internal/waiting"
)

// How a leader is elected, by the protocol of client-go's leaderelection, whose package would bring the types and the
// clients of all of Kubernetes: who holds the Lease renews it; who sees it unchanged for as long as it says takes it.
const (
	leaseTime   = 15 * time.Second // others wait for so long without news of the Lease
	renewWithin = 10 * time.Second // a leader that could not renew for so long stops, while others still wait
	renewEvery  = 2 * time.Second
	callTime    = 5 * time.Second // a call that takes longer is tried again
)

// errLost says that this controller may not write any more.
var errLost = errors.New("the Lease is another controller's now, or could not be renewed in time: beginning again")

// lease is the Lease that the leader holds; kube.Lease says what its methods promise.
type lease interface {
	Get(ctx context.Context) (*coordinationv1.Lease, error)
	Create(ctx context.Context, spec coordinationv1.LeaseSpec) (*coordinationv1.Lease, error)
	Update(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error)
}

// elector takes part in an election. It is for one goroutine.
type elector struct {
	lease lease
	id    string // of this process, unlike any other's
	log   *slog.Logger

	seen   *coordinationv1.Lease // as it was last heard of; nil: there was none
	seenAt time.Time             // when it became so, by this machine's clock: those of others need not agree
	said   string                // the last failure that was logged
}

// identity is a name for this process.
func identity() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("asking for the host name: %w", err)
	}
	return host + "_" + rand.Text(), nil
}

// run calls lead once this process holds the Lease, and gives the Lease back when lead has returned. The context of lead
// ends when the Lease is lost, and then run returns errLost.
func (e *elector) run(ctx context.Context, lead func(context.Context) error) error {
	for !e.try(ctx) {
		if !waiting.Sleep(ctx, nil, wait.Jitter(renewEvery, 0.5)) {
			return nil
		}
	}
	e.log.Info("this controller leads", "identity", e.id)
	leading, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- lead(leading) }()
	renewed := e.seenAt
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			e.release(ctx)
			return err
		case <-tick.C:
		}
		// A call may not outlast the time that is left.
		until, cancel := context.WithDeadline(leading, renewed.Add(renewWithin))
		if e.try(until) {
			renewed = e.seenAt
		}
		cancel()
		if ctx.Err() == nil && (!e.holds() || time.Since(renewed) >= renewWithin) {
			stop()
			if err := <-ended; err != nil {
				e.log.Warn("while the Lease was lost, what it was held for failed", "error", err)
			}
			e.release(ctx)
			return errLost
		}
	}
}

// holds says whether this process held the Lease when it was heard of last.
func (e *elector) holds() bool {
	return e.seen != nil && ptr.Deref(e.seen.Spec.HolderIdentity, "") == e.id
}

// try takes or renews the Lease, and says whether that went well.
func (e *elector) try(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if e.holds() && e.write(ctx) == nil { // it has most likely not changed since
		return true
	}
	if err := e.look(ctx); err != nil {
		e.complain(ctx, fmt.Errorf("asking for the Lease: %w", err))
		return false
	}
	if e.seen != nil {
		holder := ptr.Deref(e.seen.Spec.HolderIdentity, "")
		valid := time.Duration(ptr.Deref(e.seen.Spec.LeaseDurationSeconds, int32(leaseTime/time.Second))) * time.Second
		if holder != "" && holder != e.id && time.Since(e.seenAt) < valid {
			e.said = ""
			return false
		}
	}
	if err := e.write(ctx); err != nil {
		e.complain(ctx, fmt.Errorf("writing the Lease: %w", err))
		return false
	}
	e.said = ""
	return true
}

// look hears of the Lease.
func (e *elector) look(ctx context.Context) error {
	l, err := e.lease.Get(ctx)
	switch {
	case apierrors.IsNotFound(err):
		e.seen = nil
	case err != nil:
		return err
	case e.seen == nil || l.ResourceVersion != e.seen.ResourceVersion || l.UID != e.seen.UID:
		e.seen, e.seenAt = l, time.Now()
	}
	return nil
}

// write has this process hold the Lease from now on, unless that has changed since it was heard of.
func (e *elector) write(ctx context.Context) error {
	began := time.Now() // others count from when they hear of it, which is later
	now := &metav1.MicroTime{Time: began}
	spec := coordinationv1.LeaseSpec{HolderIdentity: &e.id, LeaseDurationSeconds: ptr.To(int32(leaseTime / time.Second)), AcquireTime: now, RenewTime: now, LeaseTransitions: ptr.To[int32](0)}
	var l *coordinationv1.Lease
	var err error
	if e.seen == nil {
		l, err = e.lease.Create(ctx, spec)
	} else {
		spec.LeaseTransitions = ptr.To(ptr.Deref(e.seen.Spec.LeaseTransitions, 0) + 1)
		if e.holds() {
			spec.AcquireTime, spec.LeaseTransitions = e.seen.Spec.AcquireTime, e.seen.Spec.LeaseTransitions
		}
		next := e.seen.DeepCopy()
		next.Spec = spec
		l, err = e.lease.Update(ctx, next)
	}
	if err != nil {
		return err
	}
	e.seen, e.seenAt = l, began
	return nil
}

// release gives the Lease back, so that another need not wait until it has run out.
func (e *elector) release(ctx context.Context) {
	if !e.holds() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
	defer cancel()
	next := e.seen.DeepCopy()
	next.Spec.HolderIdentity, next.Spec.LeaseDurationSeconds = nil, ptr.To[int32](1)
	l, err := e.lease.Update(ctx, next)
	if err != nil {
		e.log.Warn("the Lease could not be given back; another controller takes it when it has run out", "error", err)
		return
	}
	e.seen = l
}

// complain logs a failure that is another than before.
func (e *elector) complain(ctx context.Context, err error) {
	if said := err.Error(); said != e.said && !errors.Is(ctx.Err(), context.Canceled) {
		e.said = said
		e.log.Warn("the election of a leader does not go on; it will be tried again", "error", err)
	}
}
