package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/waiting"
)

// leaseBoot is the annotation on the Lease of a node that names the boot in which its agent runs. Two agents that answer to
// one node name, on two machines, have two boots; one that is started again has the same.
const leaseBoot = v1alpha1.Group + "/boot-id"

// leaseMachine is the annotation beside it that names the machine of that boot, as alone.seal does; empty: it is not known.
const leaseMachine = v1alpha1.Group + "/machine"

const (
	// silence is how long another agent has not renewed the Lease until its node takes it for dead: longer than agents wait
	// between two renewals, with one that failed.
	silence = 75 * time.Second
	// dead is the age of a Lease, by this node's clock, from which on the agent waits for no renewal: more than clocks differ.
	dead = 10 * time.Minute
	// settleEvery is the time between two looks at the Lease at first, until it is known whether another agent lives.
	settleEvery = 3 * time.Second
)

// errNotSettled says that the Lease was not read yet.
var errNotSettled = errors.New("whether another agent answers to the name of this node is not known yet, since the API server has not said so")

// alone says whether this agent is the only one of its node. The Lease of the node belongs to the boot that it names: others
// write it only where its owner is silent. The API server refuses a write from an older version of it, so that one owns it.
type alone struct {
	// These never change.
	boot    string           // this one
	machine string           // this one; empty: it cannot be told from others
	booted  func() time.Time // when it booted, by its clock as that goes now

	write sync.Mutex // held while the Lease is written

	mu      sync.Mutex
	version string    // of the Lease, as this agent has written it; empty: it is to be read
	other   string    // the boot of another agent that owns the Lease; empty: none does
	renewed string    // when that was renewed last, by the other's clock
	since   time.Time // since when it was seen to be so
	lives   bool      // it was renewed meanwhile
	why     error     // nil: this agent owns the Lease
}

// Alone is why this node must give out no address: another agent answers to its name, or may; nil: none does.
func (s *Store) Alone() error {
	s.alone.mu.Lock()
	defer s.alone.mu.Unlock()
	return s.alone.why
}

// settle looks at the Lease until it is known whose it is, or the context ends: pods are not to wait for the first heartbeat.
func (s *Store) settle(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		// A Lease that is made here has no owner yet; the first heartbeat names it.
		if _, err := s.Renew(ctx, ""); err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			s.log.Warn("whether this agent is the only one of its node is not known yet; it will be tried again", "error", err)
		}
		s.alone.mu.Lock()
		settled := s.alone.why == nil || s.alone.lives // the next heartbeats look again
		s.alone.mu.Unlock()
		if settled {
			return
		}
		waiting.Sleep(ctx, nil, settleEvery)
	}
}

// seal names this machine together with one of its boots. Only one that knows the machine can make it, and it says nothing
// beside another boot: a version that does not know of it changes the boot alone. Empty: this machine cannot be told from others.
func (a *alone) seal(boot string) string {
	if a.machine == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(a.machine + "\n" + boot))
	return hex.EncodeToString(sum[:16])
}

// past says whether a Lease was renewed last by this machine, before it booted. A machine is in one boot at a time, so no agent
// lives in that one any more. Where anything of this is not known, or the clock is behind, it is not so.
//
// Two machines that are alike in all that names them can still have one name: then the one that booted last takes the Lease at
// once. The other sees at its next renewal, within 50 seconds, that the Lease was renewed since it booted itself, and
// gives out no address from then on.
func (a *alone) past(l *coordinationv1.Lease) bool {
	seal := a.seal(l.Annotations[leaseBoot])
	return seal != "" && l.Annotations[leaseMachine] == seal && l.Spec.RenewTime != nil && l.Spec.RenewTime.Time.Before(a.booted())
}

// may says whether this agent may write the Lease that was read at a time.
func (a *alone) may(l *coordinationv1.Lease, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	boot, renewed := l.Annotations[leaseBoot], ""
	if l.Spec.RenewTime != nil {
		renewed = l.Spec.RenewTime.UTC().Format(time.RFC3339Nano)
	}
	if boot == "" || boot == a.boot || a.past(l) {
		return true
	}
	switch {
	case boot != a.other:
		a.other, a.renewed, a.since, a.lives = boot, renewed, now, false
	case renewed != a.renewed:
		a.renewed, a.since, a.lives = renewed, now, true
	}
	// The clock of another machine may be behind: only what is far too old for that is dead at the first look.
	if old := l.Spec.RenewTime != nil && now.Sub(l.Spec.RenewTime.Time) > dead; !a.lives && old || now.Sub(a.since) >= silence {
		return true
	}
	a.version = ""
	a.why = fmt.Errorf("another agent, in the boot %s, has renewed the Lease of this node at %s; if it is from before this machine booted, this agent takes over %s later",
		boot, renewed, silence)
	if a.lives {
		a.why = fmt.Errorf("another agent, in the boot %s, answers to the name of this node: give each machine a name of its own", boot)
	}
	return false
}

// owns notes that this agent owns the Lease, which it has written.
func (a *alone) owns(l *coordinationv1.Lease) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version, a.other, a.lives, a.why = l.ResourceVersion, "", false, nil
}

// known is the version of the Lease that this agent has written last, or "".
func (a *alone) known() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.version
}

// forget has the Lease be read before it is written next.
func (a *alone) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version = ""
}

// renew writes the Lease of this node, as it is to be, where this agent may: it fails with the reason of Alone where it may
// not.
func (s *Store) renew(ctx context.Context, c rest.Interface, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	a := &s.alone
	a.write.Lock()
	defer a.write.Unlock()
	for range 3 { // the controller may write in between, to mark it
		if l.ResourceVersion = a.known(); l.ResourceVersion == "" {
			there := &coordinationv1.Lease{}
			err := c.Get().Namespace(s.namespace).Resource("leases").Name(l.Name).Do(ctx).Into(there)
			if err != nil && !apierrors.IsNotFound(err) {
				return nil, err
			}
			if err == nil && !a.may(there, time.Now()) {
				return nil, s.Alone()
			}
			l.ResourceVersion = there.ResourceVersion
		}
		now, err := putLease(ctx, c, s.namespace, l)
		if err == nil {
			a.owns(now)
			return now, nil
		}
		a.forget()
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("others change the Lease %s at the same time", l.Name)
}

// putLease writes a Lease in the place of the version that it names; without one, it makes the Lease.
func putLease(ctx context.Context, c rest.Interface, namespace string, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	b, err := encoded(l)
	if err != nil {
		return nil, err
	}
	out := &coordinationv1.Lease{}
	if l.ResourceVersion == "" {
		return out, c.Post().Namespace(namespace).Resource("leases").SetHeader("Content-Type", "application/json").Body(b).Do(ctx).Into(out)
	}
	return out, c.Patch(types.MergePatchType).Namespace(namespace).Resource("leases").Name(l.Name).Body(b).Do(ctx).Into(out)
}
