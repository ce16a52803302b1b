package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/internal/model"
)

// maxAnswer bounds what is read of a refusal, in bytes.
const maxAnswer = 1 << 14

// contact notes how an API server answers. Every watch brings a bookmark about once a minute, so that one that is
// reached is heard of at least so often.
type contact struct {
	mu      sync.Mutex
	heard   time.Time // the last byte that came
	lost    time.Time // when the calls began to fail; zero: the last one did not
	why     string
	answers map[string]answer // by the plural of what was listed or watched
}

// answer is how the last list or watch of a resource was answered.
type answer struct {
	code    int
	message string    // of a refusal
	since   time.Time // when it was first answered so
}

func newContact() *contact { return &contact{answers: map[string]answer{}} }

// wrap makes a transport note how its calls go.
func (c *contact) wrap(next http.RoundTripper) http.RoundTripper { return &listener{next, c} }

type listener struct {
	next    http.RoundTripper
	contact *contact
}

// RoundTrip makes a call.
func (l *listener) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.next.RoundTrip(req)
	if err != nil {
		if req.Context().Err() == nil {
			l.contact.fail(err)
		}
		return resp, err
	}
	message := ""
	if resp.StatusCode >= http.StatusBadRequest {
		message = refusal(resp)
	}
	l.contact.hear()
	l.contact.answer(path.Base(req.URL.Path), resp.StatusCode, message)
	resp.Body = &body{resp.Body, l.contact}
	return resp, nil
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

func (c *contact) answer(resource string, code int, message string) {
	if !slices.Contains([]string{pathPools, pathNAT, pathNodes}, resource) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a := answer{code: code, message: message, since: time.Now()}
	if was, ok := c.answers[resource]; ok && was.code == code {
		a.since = was.since
	}
	c.answers[resource] = a
}

// code is how the last list or watch of a resource was answered; 0: not yet.
func (c *contact) code(resource string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers[resource].code
}

// forget has a resource be one of which nothing was asked yet.
func (c *contact) forget(resource string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.answers, resource)
}

// forgive is how long a resource may be refused before that is a problem: a server that starts says all sorts of
// things.
const forgive = 3 * time.Second

// problems says which resources the server refuses to list or watch.
func (c *contact) problems(now time.Time) []model.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []model.Fault
	for _, resource := range slices.Sorted(maps.Keys(c.answers)) {
		a := c.answers[resource]
		if a.code < http.StatusBadRequest || now.Sub(a.since) < forgive {
			continue
		}
		what := "their last good view stays in force"
		switch a.code {
		case http.StatusForbidden:
			what += "; give the agent's service account the right to list and watch them"
		case http.StatusUnauthorized:
			what += "; the agent's credentials are not accepted: look at its service account's token, or its kubeconfig"
		case http.StatusNotFound:
			what += "; install their CustomResourceDefinition again"
		}
		out = append(out, model.Fault{Message: fmt.Sprintf("the API server has refused to list or watch %s since %s (%d: %s): %s", resource,
			a.since.UTC().Format(time.RFC3339), a.code, a.message, what)})
	}
	return out
}
