package dir

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
	"github.com/sallyport/sallyport/internal/waiting"
)

// validator is the real one, compiled once for all tests.
var validator = sync.OnceValue(func() manifest.Validator { return validate.New() })

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// harness is a Store that runs on a directory, with everything that it published.
type harness struct {
	t          *testing.T
	dir, state string
	store      *Store
	stop       func()

	mu     sync.Mutex
	states []State
	news   chan struct{}
}

// start runs a Store on the directory until the test ends, or stop is called.
func start(t *testing.T, dir, stateDir string) *harness {
	t.Helper()
	return startWith(t, dir, stateDir, nil)
}

// startWith does so with a kernel that translates what an earlier agent has left, or does not.
func startWith(t *testing.T, dir, stateDir string, translates func() (bool, error)) *harness {
	t.Helper()
	h := &harness{t: t, dir: dir, state: stateDir, news: make(chan struct{}, 1)}
	s, err := Open(Options{Dir: dir, StateDir: stateDir, Log: slog.New(slog.DiscardHandler), Validator: validator(), Translates: translates})
	if err != nil {
		t.Fatal(err)
	}
	h.store = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, h.publish) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(h.stop)
	h.until("the first state", func(State) bool { return true })
	return h
}

// new runs a Store on a fresh directory with these files.
func newHarness(t *testing.T, files map[string]string) *harness {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "resources")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return start(t, dir, filepath.Join(base, "state"))
}

func (h *harness) publish(s State) {
	h.mu.Lock()
	h.states = append(h.states, s)
	h.mu.Unlock()
	waiting.Signal(h.news)
}

func (h *harness) published() []State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]State(nil), h.states...)
}

func (h *harness) last() State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.states[len(h.states)-1]
}

// until waits for a state, and returns it.
func (h *harness) until(what string, ok func(State) bool) State {
	h.t.Helper()
	limit := time.After(patience)
	for {
		h.mu.Lock()
		n := len(h.states)
		var s State
		if n > 0 {
			s = h.states[n-1]
		}
		h.mu.Unlock()
		if n > 0 && ok(s) {
			return s
		}
		select {
		case <-h.news:
		case <-limit:
			h.t.Fatalf("waited %v for %s; the last state has pools %v, faults %v, warnings %v", patience, what, pools(s), s.Faults, s.Warnings)
		}
	}
}

// untilPools waits for a state without faults with exactly these pools, as name=cidr.
func (h *harness) untilPools(want ...string) State {
	h.t.Helper()
	return h.until(fmt.Sprint("pools ", want), func(s State) bool {
		return len(s.Faults) == 0 && s.Snapshot != nil && strings.Join(pools(s), " ") == strings.Join(want, " ")
	})
}

// untilFault waits for exactly one fault with this text.
func (h *harness) untilFault(part string) State {
	h.t.Helper()
	return h.until("the fault "+part, func(s State) bool { return len(s.Faults) == 1 && strings.Contains(s.Faults[0].String(), part) })
}

// never fails the test if a published state had other pools than these sets.
func (h *harness) never(what string, bad func(State) bool) {
	h.t.Helper()
	for _, s := range h.published() {
		if bad(s) {
			h.t.Errorf("%s: published pools %v, faults %v", what, pools(s), s.Faults)
		}
	}
}

func pools(s State) []string {
	if s.Snapshot == nil {
		return nil
	}
	var out []string
	for _, p := range s.Snapshot.Pools {
		out = append(out, p.Name+"="+p.CIDR.String())
	}
	return out
}

func find(s State, name string) *model.Pool {
	for _, p := range s.Snapshot.Pools {
		if p.Name == name {
			return p
		}
	}
	return &model.Pool{}
}

func pool(name, cidr string, more ...string) string {
	out := fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: %s\nspec:\n  cidr: %s\n", name, cidr)
	for _, m := range more {
		out += "  " + m + "\n"
	}
	return out
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadsEveryForm(t *testing.T) {
	t.Parallel()
	h := newHarness(t, map[string]string{
		"a.yaml":     "# head\n---\n" + pool("a1", "10.1.0.0/24") + "---\n# nothing\n---\n" + pool("a2", "10.2.0.0/24"),
		"b.yml":      "apiVersion: v1\nkind: List\nitems:\n- apiVersion: crd.projectcalico.org/v1\n  kind: IPPool\n  metadata: {name: b1}\n  spec: {cidr: 10.3.0.0/24}\n- {apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: a}}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}\n",
		"c.json":     `{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"c1"},"spec":{"cidr":"fd00::/64"}}` + "\n" + `{"apiVersion":"sallyport.dev/v1alpha1","kind":"NATConfiguration","metadata":{"name":"n"},"spec":{"addresses":[]}}`,
		".d.yaml":    "not: [read",
		"README.md":  "not read",
		"e.yaml~":    "not read",
		"empty.yaml": "# nothing yet\n",
		"crlf.yaml":  strings.ReplaceAll("---\n"+pool("crlf", "10.4.0.0/24")+"...\n", "\n", "\r\n"),
		"bom.yaml":   "\xef\xbb\xbf" + pool("bom", "10.5.0.0/24"),
	})
	must(t, os.Mkdir(filepath.Join(h.dir, "sub"), 0o755))
	s := h.untilPools("a1=10.1.0.0/24", "a2=10.2.0.0/24", "b1=10.3.0.0/24", "bom=10.5.0.0/24", "c1=fd00::/64", "crlf=10.4.0.0/24")
	if n := s.Snapshot.Nodes; len(n) != 1 || n[0].Labels["zone"] != "a" || len(n[0].Addresses) != 1 {
		t.Errorf("nodes %+v", n)
	}
	if c := s.Snapshot.NATConfigurations; len(c) != 1 || c[0].Addresses == nil || c[0].OutInterfaces != nil {
		t.Errorf("configurations %+v: an empty list is set, an absent one is not", c)
	}
}
