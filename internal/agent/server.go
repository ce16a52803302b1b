package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// MaxWait is how long an agent waits at most for what a caller asks for.
const MaxWait = 10 * time.Minute

// Bounds on what callers may ask for.
const (
	lookPatience   = 2 * time.Second
	settlePatience = time.Second
	hung           = 3 * time.Minute        // without a turn of the loop, after which the agent is not healthy
	countPatience  = 500 * time.Millisecond // for the kernel's counters in a status
	maxRequest     = 16 << 20               // bytes of a request's body
	scrapeTimeout  = 5 * time.Second        // less than Prometheus waits by default, which would lose all metrics
)

// socketHandler serves the agent's socket.
func (a *Agent) socketHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", a.serveStatus)
	mux.HandleFunc("POST /v1/wait", a.serveWait)
	mux.HandleFunc("GET /v1/explain", a.serveExplain)
	mux.HandleFunc("GET /v1/objects", a.serveObjects)
	mux.HandleFunc("POST /v1/directory", a.serveDirectory)
	mux.HandleFunc("POST /v1/forget", a.serveForget)
	mux.HandleFunc("GET /v1/flows", a.serveFlows)
	mux.HandleFunc("GET /v1/ipam", a.serveIPAM)
	mux.HandleFunc("GET /v1/bgp", a.serveBGP)
	mux.HandleFunc("POST /v1/ipam/release", a.serveRelease)
	mux.HandleFunc("POST /v1/cleanup", a.serveCleanup)
	return mux
}

// healthHandler serves what probes and Prometheus ask for.
func (a *Agent) healthHandler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if at := a.turned.Load(); at != nil && time.Since(*at) > hung { // by the clock that nobody sets
			http.Error(w, "the loop that programs the kernel has not come round since "+at.UTC().Format(time.RFC3339), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		s, _ := a.loop.State()
		if ready, reason := s.Ready(); !ready {
			http.Error(w, "not ready: "+reason, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", metrics)
	return mux
}

// serveStatus looks the directory over first: who changed a file and asks then must not be told how it stood
// before.
func (a *Agent) serveStatus(w http.ResponseWriter, r *http.Request) {
	var wait time.Duration
	if text := r.FormValue("wait"); text != "" {
		var err error
		if wait, err = time.ParseDuration(text); err != nil {
			http.Error(w, fmt.Sprintf("wait: %q is not a duration such as 5s", text), http.StatusBadRequest)
			return
		}
	}
	end := time.Now().Add(wait)
	look, cancel := context.WithTimeout(r.Context(), min(lookPatience, max(wait, settlePatience)))
	defer cancel()
	looked := a.store.Look(look)
	if wait > 0 {
		a.until(r.Context(), time.Until(end), a.unsettled)
	}
	count, cancel := context.WithTimeout(r.Context(), countPatience)
	defer cancel()
	status, err := a.status(count)
	if err != nil {
		a.log.Warn("status is incomplete", "error", err)
		status.Warnings = append(status.Warnings, model.Fault{Message: err.Error()})
	}
	if looked != nil {
		status.Warnings = append(status.Warnings, model.Fault{File: a.store.Contact().Where, Message: "the agent is busy reading the manifests; a change that was just made may not be in this status yet"})
	}
	reply(w, status)
}

// unsettled says why the kernel may not hold the manifests as they are now, or "".
func (a *Agent) unsettled() string {
	s, _ := a.loop.State()
	held := a.resources.get()
	if ok, reason := ready(s, held); !ok {
		return reason
	}
	return strings.Join(held.Pending, ", ")
}

func (a *Agent) serveWait(w http.ResponseWriter, r *http.Request) {
	var req WaitRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&req); err != nil {
		http.Error(w, "reading the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	reason := a.until(r.Context(), seconds(req.Seconds), func() string { return a.missing(req.Objects) })
	reply(w, WaitResponse{Held: reason == "", Reason: reason})
}

// until calls check at each change of state until it returns "" or the time is over, and returns what it
// said last.
func (a *Agent) until(ctx context.Context, d time.Duration, check func() string) string {
	ctx, cancel := context.WithTimeout(ctx, min(d, MaxWait))
	defer cancel()
	for {
		_, changed := a.loop.State()
		read := a.resources.changed()
		reason := check()
		if reason == "" {
			return ""
		}
		select {
		case <-changed:
		case <-read:
		case <-ctx.Done():
			return reason
		}
	}
}

// missing says why the kernel does not hold the objects yet, or "" when it does.
func (a *Agent) missing(objects []ObjectDigest) string {
	// The loop's state is read first: what it has applied was published before.
	s, _ := a.loop.State()
	held := a.resources.get()
	if len(held.Faults) > 0 {
		return fmt.Sprintf("the last good state stays in force while there is a fault: %s", held.Faults[0])
	}
	for _, o := range objects {
		if !held.Holds(o.Kind, o.Name, o.Digest) {
			return fmt.Sprintf("the agent has not taken up this change of %s %q yet; it watches %s", o.Kind, o.Name, a.store.Contact().Where)
		}
	}
	_, reason := ready(s, held)
	return reason
}

func (a *Agent) serveExplain(w http.ResponseWriter, r *http.Request) {
	f, err := flowOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	look, cancel := context.WithTimeout(r.Context(), lookPatience)
	defer cancel()
	looked := a.store.Look(look)
	a.until(look, settlePatience, a.unsettled) // a change that was just made comes into force within milliseconds
	s, _ := a.loop.State()
	held := a.resources.get()
	ok, reason := ready(s, held)
	if s.Plan == nil {
		http.Error(w, reason, http.StatusServiceUnavailable)
		return
	}
	out := ExplainResponse{Node: a.cfg.NodeName, Verdict: s.Plan.Decide(f), Settings: s.Plan.Settings, Ready: ok, Reason: reason}
	if r, ok := s.Plan.RouteOf(f.Destination); ok {
		out.Route = r.CIDR.String() + ": " + r.Reason()
	}
	if a.network != nil {
		out.BGP = a.network.speaker.explain(r.Context(), f.Source, f.Destination)
	}
	if a.cfg.Datastore != Kubernetes {
		out.Dir = a.store.Contact().Where
		out.Current = looked == nil && s.Version == held.Version && asDeclared(held)
		if len(held.Faults) > 0 {
			out.Fault = &held.Faults[0]
		}
	}
	reply(w, out)
}

// asDeclared says whether what is in force is all that the manifests declare: none is faulty, and none is being written.
func asDeclared(held datastore.State) bool {
	return held.Holder != nil && len(held.Faults)+len(held.Pending) == 0
}

// noManifests is the refusal of what only an agent with a directory can do.
const noManifests = "this agent reads no manifests, but the API of a cluster"

// serveObjects says what the manifests declare, where the agent holds them as they are, so that they need not be read
// and validated again.
func (a *Agent) serveObjects(w http.ResponseWriter, r *http.Request) {
	if a.cfg.Datastore == Kubernetes {
		http.Error(w, noManifests, http.StatusNotFound)
		return
	}
	asked := r.URL.Query()
	kind, names := asked.Get("kind"), asked["name"]
	look, cancel := context.WithTimeout(r.Context(), lookPatience)
	defer cancel()
	looked := a.store.Look(look)
	held := a.resources.get()
	out := ObjectsResponse{Dir: a.store.Contact().Where, Current: looked == nil && asDeclared(held)}
	out.Fault = faultOf(out.Dir, held)
	if out.Current {
		for _, o := range held.Holder.Objects(kind, names) {
			out.Objects = append(out.Objects, DeclaredObject{Kind: o.Kind, Name: o.Name, Object: o.JSON})
		}
	}
	if kind == datastore.KindIPPool && held.Snapshot != nil {
		for _, p := range held.Snapshot.Pools {
			if len(names) == 0 || slices.Contains(names, p.Name) {
				out.Pools = append(out.Pools, poolStatus(p, held.Conditions[p.Name]))
			}
		}
	}
	reply(w, out)
}

// serveCleanup removes what the agent has put into the kernel, and ends the agent. The request lives no longer than
// its caller: one that was sent to an agent that hung, and given up, has no body when the agent reads it at last, since
// the caller sends that only once the agent asks for it (RFC 9110, section 10.1.1).
func (a *Agent) serveCleanup(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Expect") != expectContinue {
		http.Error(w, "a cleanup needs the header Expect: "+expectContinue, http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var req CleanupRequest
	if err = cmp.Or(err, json.Unmarshal(body, &req)); err != nil {
		http.Error(w, "reading the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(seconds(req.Seconds), MaxWait))
	defer cancel()
	a.log.Info("asked to clean up and end")
	if err := a.cleanUp(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, struct{}{})
}

func flowOf(r *http.Request) (compile.Flow, error) {
	src, err1 := netip.ParseAddr(r.FormValue("source"))
	dst, err2 := netip.ParseAddr(r.FormValue("destination"))
	proto, err3 := strconv.ParseUint(r.FormValue("protocol"), 10, 8)
	port, err4 := strconv.ParseUint(r.FormValue("port"), 10, 16)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return compile.Flow{}, err
	}
	if src.BitLen() != dst.BitLen() {
		return compile.Flow{}, fmt.Errorf("%s and %s are not of one family", src, dst)
	}
	return compile.Flow{Source: src.Unmap(), Destination: dst.Unmap(), Protocol: compile.Protocol(proto),
		DestinationPort: uint16(port), OutInterface: r.FormValue("outInterface")}, nil
}

// seconds is a number of seconds that a caller has sent, without what no duration can hold.
func seconds(s float64) time.Duration {
	return time.Duration(min(max(s, 0), MaxWait.Seconds()) * float64(time.Second))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a caller that has gone away needs no answer
}
