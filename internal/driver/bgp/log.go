package bgp

import (
	"context"
	"log/slog"
	"sync"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Messages of gobgp that tell what it tells in no other way (server.go, listener.go of v4.8.0). The tests see each of them.
const (
	saysNoKey    = "failed to set md5"
	saysStranger = "Can't find configuration for a new passive connection"
	saysDeaf     = "Failed to AcceptTCP"
	saysDeaf2    = "Failed to SetKeepAlive"
	saysSilent   = "Expired"            // of BFD (bfd_peer.go)
	saysExpired  = "hold timer expired" // fsm.go
)

// heard is what gobgp said in its log.
type heard struct {
	mu        sync.Mutex
	keyless   map[string]string // peers whose key the kernel refused, and why
	strangers uint64            // connections from addresses that are no peer's
	deaf      bool              // a listener has ended
	bfd       func(peer string) // a peer fell silent; nil: BFD does not run here
	expired   func(peer string) // a peer whose session is up was silent for the hold time; nil: no session is made here
}

// noKey says why the kernel refused the key of a peer, and forgets it.
func (h *heard) noKey(peer string) (why string, refused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	why, refused = h.keyless[peer]
	delete(h.keyless, peer)
	return why, refused
}

func (h *heard) isDeaf() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.deaf
}

func (h *heard) count() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.strangers
}

// listener is a slog.Handler that hears what matters. The rest is for debugging: peers can make gobgp say much.
type listener struct {
	heard *heard
	to    slog.Handler
	peer  string // that all messages are about; empty: they say it themselves
}

func (l listener) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (l listener) Handle(ctx context.Context, r slog.Record) error {
	switch r.Message {
	case saysNoKey:
		l.heard.mu.Lock()
		l.heard.keyless[attribute(r, "Key")] = attribute(r, "Err")
		l.heard.mu.Unlock()
	case saysStranger:
		l.heard.mu.Lock()
		l.heard.strangers++
		l.heard.mu.Unlock()
	case saysDeaf, saysDeaf2:
		l.heard.mu.Lock()
		l.heard.deaf = true
		l.heard.mu.Unlock()
	case saysSilent:
		if l.heard.bfd != nil {
			l.heard.bfd(attribute(r, "Peer"))
		}
	case saysExpired:
		if l.heard.expired != nil && attribute(r, "State") == bgp.BGP_FSM_ESTABLISHED.String() {
			l.heard.expired(l.peer)
		}
	}
	if r.Level = slog.LevelDebug; !l.to.Enabled(ctx, r.Level) {
		return nil
	}
	r.Message = "gobgp: " + r.Message
	return l.to.Handle(ctx, r)
}

func (l listener) WithAttrs(attrs []slog.Attr) slog.Handler {
	peer := l.peer
	for _, a := range attrs {
		if a.Key == "Key" {
			peer = a.Value.String()
		}
	}
	return listener{l.heard, l.to.WithAttrs(attrs), peer}
}

func (l listener) WithGroup(name string) slog.Handler {
	return listener{l.heard, l.to.WithGroup(name), l.peer}
}

func attribute(r slog.Record, key string) (value string) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == key {
			value = a.Value.String()
		}
		return a.Key != key
	})
	return value
}
