package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/waiting"
)

// announceRetry is the time between two tries to say again what others took from the Node.
const announceRetry = 5 * time.Second

// announcement is what the agent says of its node, as the annotations have it.
type announcement struct{ addresses, tunnels string }

// announcements are what this node is to say, and what its Node says.
type announcements struct {
	wake chan struct{} // the two may differ

	mu     sync.Mutex
	wanted *announcement // nil: nothing was announced
	seen   *announcement // nil: there is no Node
}

// see takes what the Node says now; nil: there is none.
func (a *announcements) see(node *model.Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = nil
	if node != nil {
		a.seen = &announcement{datastore.AnnouncedText(node.NetworkAddresses), datastore.AnnouncedText(node.Tunnels)}
	}
	if a.wanted != nil && a.seen != nil && *a.wanted != *a.seen {
		waiting.Signal(a.wake)
	}
}

// due is what is to be written; nil: nothing.
func (a *announcements) due() *announcement {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wanted == nil || a.seen == nil || *a.wanted == *a.seen {
		return nil
	}
	return a.wanted
}

// Announce says in the annotations of this node's Node which addresses the node has for others, as datastore.Announcer
// says. While Run runs, it is said again where the Node was made again, or others took it away. It may be called while Run
// runs, by one goroutine at a time.
func (s *Store) Announce(ctx context.Context, addresses, tunnels []netip.Addr) error {
	want := &announcement{datastore.AnnouncedText(addresses), datastore.AnnouncedText(tunnels)}
	a := &s.announcements
	a.mu.Lock()
	stands := a.seen != nil && *a.seen == *want
	a.wanted = want
	a.mu.Unlock()
	if stands {
		return nil
	}
	return s.announce(ctx, want)
}

// announce writes what the node is to say. Where there is no Node it is said when one comes.
func (s *Store) announce(ctx context.Context, want *announcement) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	value := func(text string) any {
		if text == "" {
			return nil // the annotation goes
		}
		return text
	}
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{
		datastore.AnnotationNetworkAddresses: value(want.addresses), datastore.AnnotationTunnelAddresses: value(want.tunnels)}}})
	if err != nil {
		return fmt.Errorf("encoding annotations: %w", err)
	}
	_, err = s.api.dynamic.Resource(resourceNodes).Patch(ctx, s.node, types.MergePatchType, b, metav1.PatchOptions{FieldManager: fieldOwner})
	if err != nil && !apierrors.IsNotFound(err) {
		return asked("announcing the addresses of this node on its Node", err)
	}
	return nil
}

// keepAnnounced says again what others took away, until the context ends.
func (s *Store) keepAnnounced(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.announcements.wake:
		}
		for ctx.Err() == nil {
			want := s.announcements.due()
			if want == nil {
				break
			}
			if err := s.announce(ctx, want); err != nil && ctx.Err() == nil {
				s.log.Warn("the addresses of this node could not be announced; it will be tried again", "error", err)
			}
			waiting.Sleep(ctx, nil, announceRetry) // what was written is about to be heard of
		}
	}
}
