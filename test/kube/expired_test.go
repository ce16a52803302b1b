package kube

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// expired ends all watches by stopping the API server, and lets nodes reach it again only when pools were changed and it
// was started once more, so that it knows nothing of the time before: the resourceVersion from which agents want to go
// on is too old.
func (v *disturbances) expired(t *testing.T) {
	s, p := v.site, v.probes
	p.hold(t, "all nodes cut off", func() {
		s.c.StopServer(t) // while agents hear it: a cable that is pulled ends no watch, and what is lost so is listed anew
		for _, n := range s.nodes {
			s.c.Disconnect(t, n.host)
		}
		s.c.StartServer(t)
		v.replaced(false)
		s.c.StopServer(t)
		s.c.StartServer(t)
	})
	before := len(s.c.Audit(t))
	p.change(t, "connected again", p.inner, func() {
		for _, n := range s.nodes {
			s.c.Reconnect(t, n.host)
		}
	})
	refused := map[string]bool{} // by what was asked for: when an agent's watch is to end is random
	for _, e := range s.c.Audit(t)[before:] {
		if e.Verb != "watch" && e.Verb != "list" || e.Resource != "ippools" || strings.Contains(e.URI, "fieldSelector") {
			continue
		}
		t.Logf("%s %s: %d, open %t", e.Verb, e.URI, e.Code, e.Open)
		if e.Verb == "watch" && e.Code == http.StatusGone || s.gone(t, e.URI) {
			refused[e.URI] = true
		}
	}
	if len(refused) == 0 {
		t.Error("no node wanted to go on from where the API server knows nothing of")
	}
	p.change(t, "pools restored", p.own, v.restored)
}

// gone asks for a watch as another did, and says whether the API server answers that its resourceVersion is too old.
func (s *site) gone(t *testing.T, uri string) bool {
	t.Helper()
	if !strings.Contains(uri, "watch=true") || strings.Contains(uri, "sendInitialEvents=true") {
		return false
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	server := newServer(t, s.c)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.url+uri, nil)
	labtest.Must(t, err)
	req.Header.Set("Accept", "application/json")
	resp, err := server.client.Do(req)
	labtest.Must(t, err)
	defer resp.Body.Close()
	var event struct {
		Type   string
		Object struct {
			Code            int
			Reason, Message string
		}
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&event); err != nil {
		return false // a watch that goes on
	}
	if event.Object.Code == http.StatusGone {
		t.Logf("to %s the API server says %s %d: %s", uri, event.Type, event.Object.Code, event.Object.Message)
	}
	return event.Object.Code == http.StatusGone
}
