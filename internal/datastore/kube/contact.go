package kube

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/sallyport/sallyport/internal/model"
)

// maxAnswer bounds what is read of a refusal, in bytes.
const maxAnswer = 1 << 14

// contact notes how an API server answers. Every watch brings a bookmark about once a minute, so that one that is
// reached is heard of at least so often.
type contact struct {
	patient bool   // lists and watches are tried until a server answers; never changed once used
	changed func() // called when a resource is answered otherwise than before; it does not wait; never changed once used

	nodes atomic.Int64 // about how many there are; 0: not known

	mu      sync.Mutex
	heard   time.Time // the last byte that came
	lost    time.Time // when the calls began to fail; zero: the last one did not
	why     string
	answers map[request]answer
}

// request is a list or a watch of a resource, such as nodes or ippools.projectcalico.org.
type request struct{ resource, verb string }

const (
	verbList  = "list"
	verbWatch = "watch"
)

// requestOf says what a call lists or watches; ok is false for a call that does neither.
func requestOf(req *http.Request) (r request, ok bool) {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	switch {
	case req.Method != http.MethodGet:
		return r, false
	case len(parts) == 3 && parts[0] == "api": // api/v1/nodes
		r.resource = parts[2]
	case len(parts) == 4 && parts[0] == "apis": // apis/projectcalico.org/v3/ippools
		r.resource = resourceName(parts[3], parts[1])
	default:
		return r, false
	}
	r.verb = verbList
	if watch, err := strconv.ParseBool(req.URL.Query().Get("watch")); err == nil && watch {
		r.verb = verbWatch
	}
	return r, true
}

// resourceName is how RBAC's messages and kubectl name a resource.
func resourceName(plural, group string) string {
	if group == "" {
		return plural
	}
	return plural + "." + group
}

// answer is how the last such request was answered.
type answer struct {
	code    int
	message string    // of a refusal
	since   time.Time // when it was first answered so
}

func newContact() *contact { return &contact{answers: map[request]answer{}} }

// wrap makes a transport note how its calls go.
func (c *contact) wrap(next http.RoundTripper) http.RoundTripper { return &listener{next, c} }

type listener struct {
	next    http.RoundTripper
	contact *contact
}

// RoundTrip makes a call.
func (l *listener) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.try(req)
	if err != nil {
		return resp, err
	}
	message := ""
	if resp.StatusCode >= http.StatusBadRequest {
		message = refusal(resp)
	}
	l.contact.hear()
	if r, ok := requestOf(req); ok {
		l.contact.answer(r, resp.StatusCode, message)
	}
	resp.Body = &body{resp.Body, l.contact}
	return resp, nil
}

// How long after a list or watch did not reach a server it is tried again, doubling from tryMin to tryMax, give or take a
// half. Where there are many nodes it becomes tryPerNode for each of them, and at most what informers wait themselves, so
// that a server which is back is not asked by all at once.
const (
	tryMin     = 500 * time.Millisecond
	tryMax     = 5 * time.Second
	tryPerNode = 10 * time.Millisecond
	tryAtMost  = time.Minute
)

// slowest is the longest pause between two tries, before chance.
func (c *contact) slowest() time.Duration {
	return min(max(tryMax, time.Duration(c.nodes.Load())*tryPerNode), tryAtMost)
}

// try makes a call, and where it is patient, makes one that may take for ever, for what is watched, until a server
// answers: what calls would wait up to a minute before it tries again. A server that answers says itself when it has too
// much to do, so that nothing is asked more often of one that is there.
func (l *listener) try(req *http.Request) (*http.Response, error) {
	for pause := tryMin; ; pause = min(2*pause, l.contact.slowest()) {
		resp, err := l.next.RoundTrip(req)
		if err == nil || req.Context().Err() != nil {
			return resp, err
		}
		l.contact.fail(err)
		_, listed := requestOf(req)
		if _, ends := req.Context().Deadline(); !l.contact.patient || !listed || ends {
			return resp, err
		}
		timer := time.NewTimer(wait.Jitter(pause/2, 2))
		select {
		case <-timer.C:
		case <-req.Context().Done():
			timer.Stop()
			return nil, req.Context().Err()
		}
	}
}

// refusal reads why a call was refused, and puts the body back.
func refusal(resp *http.Response) string {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), resp.Body), resp.Body}
	var s metav1.Status
	if err == nil && json.Unmarshal(b, &s) == nil && s.Message != "" {
		return s.Message
	}
	return resp.Status
}

// body notes that something is heard.
type body struct {
	io.ReadCloser
	contact *contact
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.contact.hear()
	}
	return n, err
}

func (c *contact) hear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.lost, c.why = time.Now(), time.Time{}, ""
}

func (c *contact) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost.IsZero() {
		c.lost = time.Now()
	}
	c.why = err.Error()
}

func (c *contact) answer(r request, code int, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := answer{code: code, message: message, since: time.Now()}
	was, ok := c.answers[r]
	if ok && was.code == code {
		a.since = was.since
	} else if c.changed != nil {
		c.changed()
	}
	c.answers[r] = a
	if r.verb == verbWatch && code < http.StatusBadRequest {
		delete(c.answers, request{r.resource, verbList}) // a watch that brings all there is needs no list
	}
}

// missing says whether the server does not know a resource, as the last list or watch of it was answered.
func (c *contact) missing(resource string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers[request{resource, verbList}].code == http.StatusNotFound || c.answers[request{resource, verbWatch}].code == http.StatusNotFound
}

// served says whether the last list or watch of a resource was answered as it should be.
func (c *contact) served(resource string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, verb := range []string{verbList, verbWatch} {
		if a, ok := c.answers[request{resource, verb}]; ok && a.code < http.StatusBadRequest {
			return true
		}
	}
	return false
}

// forget has a resource be one of which nothing was asked yet.
func (c *contact) forget(resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.answers, request{resource, verbList})
	delete(c.answers, request{resource, verbWatch})
}

// forgive is how long a resource may be refused before that is a problem: a server that starts says all sorts of
// things.
const forgive = 3 * time.Second

// problems says what the server refuses to list or watch.
func (c *contact) problems(now time.Time) []model.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []model.Fault
	order := func(a, b request) int {
		return cmp.Or(cmp.Compare(a.resource, b.resource), cmp.Compare(a.verb, b.verb))
	}
	for _, r := range slices.SortedFunc(maps.Keys(c.answers), order) {
		a := c.answers[r]
		if a.code < http.StatusBadRequest || now.Sub(a.since) < forgive {
			continue
		}
		what := "their last good view stays in force"
		switch a.code {
		case http.StatusForbidden:
			what += grant(r.verb, r.resource) // the answer may be in a form that is not read here
		case http.StatusUnauthorized:
			what += "; the agent's credentials are not accepted: look at its service account's token, or its kubeconfig"
		case http.StatusNotFound:
			what += "; install their CustomResourceDefinition again"
		}
		out = append(out, model.Fault{Message: fmt.Sprintf("the API server has refused to %s %s since %s (%d: %s): %s", r.verb, r.resource,
			a.since.UTC().Format(time.RFC3339), a.code, a.message, what)})
	}
	return out
}

// denied is how RBAC says that a role lacks something.
var denied = regexp.MustCompile(`cannot (\w+) resource "([^"]+)"(?: in API group "([^"]*)")?`)

// remedy is what helps against a refusal, to be put behind what is the matter; empty where the message is none of
// RBAC's, such as that of an admission policy, which says itself what it wants.
func remedy(message string) string {
	m := denied.FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	return grant(m[1], resourceName(m[2], m[3]))
}

func grant(verb, resource string) string {
	return fmt.Sprintf("; let a role of the agent's service account grant %s on %s", verb, resource)
}
