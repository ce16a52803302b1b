package kube

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apiv3 "github.com/sallyport/sallyport/api/v3"
)

// answers is a server that gives one answer after another, the last one for ever; 0: none.
type answers struct {
	codes []int
	asked int
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	code := a.codes[min(a.asked, len(a.codes)-1)]
	a.asked++
	if code == 0 {
		return nil, errors.New("connection refused")
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Body: io.NopCloser(strings.NewReader(`{"kind":"Status","message":"because"}`))}, nil
}

// call asks an API server something, and reads what it answers.
func call(ctx context.Context, t *testing.T, c *contact, next http.RoundTripper, method, path string) (code int, body string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "https://api"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.wrap(next).RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

const listPath = "/apis/projectcalico.org/v3/ippools"

// TestContactLost follows a server that goes and comes back.
func TestContactLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newContact()
		ask := func(code int) {
			_, _, err := call(t.Context(), t, c, &answers{codes: []int{code}}, http.MethodGet, "/version")
			if (err != nil) != (code == 0) {
				t.Errorf("a call that is answered by %d ends with %v", code, err)
			}
		}
		ask(200)
		heard := c.heard
		if heard.IsZero() || !c.lost.IsZero() {
			t.Errorf("after an answer: heard %s, lost %s", heard, c.lost)
		}
		time.Sleep(time.Minute)
		lost := time.Now()
		ask(0)
		time.Sleep(time.Minute)
		ask(0)
		if !c.lost.Equal(lost) || !c.heard.Equal(heard) || c.why != "connection refused" {
			t.Errorf("after failures: heard %s, lost %s because of %q", c.heard, c.lost, c.why)
		}
		ask(500) // it is there, whatever it says
		if !c.lost.IsZero() || c.why != "" || !c.heard.Equal(time.Now()) {
			t.Errorf("after another answer: heard %s, lost %s because of %q", c.heard, c.lost, c.why)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := call(ctx, t, c, &answers{codes: []int{0}}, http.MethodGet, listPath); err == nil || !c.lost.IsZero() {
			t.Errorf("a call that was taken back: %v, lost %s", err, c.lost)
		}
	})
}

// TestContactPatience makes calls to a server that is away.
func TestContactPatience(t *testing.T) {
	t.Parallel()
	away := []int{0, 0, 0, 0, 0, 0, 0, 0, 200}
	for _, test := range []struct {
		name, method, path string
		patient            bool
		asked              int
	}{
		{"a list", http.MethodGet, listPath, true, 9},
		{"nodes", http.MethodGet, "/api/v1/nodes", true, 9},
		{"a command's list", http.MethodGet, listPath, false, 1},
		{"one object", http.MethodGet, listPath + "/a", true, 1},
		{"a change", http.MethodPatch, "/api/v1/nodes", true, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c, server, start := newContact(), &answers{codes: away}, time.Now()
				c.patient = test.patient
				_, _, err := call(t.Context(), t, c, server, test.method, test.path)
				if server.asked != test.asked || (err == nil) != (test.asked == len(away)) {
					t.Errorf("it was asked %d times, want %d: %v", server.asked, test.asked, err)
				}
				// 0.5 + 1 + 2 + 4 + 4·5 s, give or take a half
				if took := time.Since(start); err == nil && (took < 13*time.Second || took > 42*time.Second) {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
	t.Run("one that somebody waits for", func(t *testing.T) {
		t.Parallel()
		c := newContact()
		c.patient = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		server := &answers{codes: away}
		if _, _, err := call(ctx, t, c, server, http.MethodGet, listPath); err == nil || server.asked != 1 {
			t.Errorf("it was asked %d times: %v", server.asked, err)
		}
	})
	t.Run("ends with its context", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			c := newContact()
			c.patient = true
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Hour, cancel)
			start, server := time.Now(), &answers{codes: []int{0}}
			_, _, err := call(ctx, t, c, server, http.MethodGet, listPath)
			if !errors.Is(err, context.Canceled) || time.Since(start) != time.Hour {
				t.Errorf("after %s: %v", time.Since(start), err)
			}
			if server.asked < 480 || server.asked > 1440 {
				t.Errorf("in an hour it was asked %d times", server.asked)
			}
		})
	})
}

// TestContactProblems says what a server refuses.
func TestContactProblems(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code  int
		after time.Duration
		want  string // of the problem; empty: there is none
	}{
		{200, time.Minute, ""},
		{403, time.Second, ""},
		{403, time.Minute, "(403: because): their last good view stays in force"},
		{401, time.Minute, "(401: because): their last good view stays in force; the agent's credentials are not accepted"},
		{404, time.Minute, "(404: because): their last good view stays in force; install their CustomResourceDefinition again"},
		{429, time.Minute, "(429: because): their last good view stays in force"},
		{500, time.Minute, "(500: because): their last good view stays in force"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c, changes, server := newContact(), 0, &answers{codes: []int{test.code}}
			c.changed = func() { changes++ }
			code, body, err := call(t.Context(), t, c, server, http.MethodGet, listPath)
			if code != test.code || !strings.Contains(body, "because") || err != nil {
				t.Errorf("%d came through as %d with %q: %v", test.code, code, body, err)
			}
			time.Sleep(test.after)
			_, _, _ = call(t.Context(), t, c, server, http.MethodGet, listPath) // again, which is no change
			_, _, _ = call(t.Context(), t, c, server, http.MethodGet, "/apis/sallyport.dev/v1alpha1/sallyportnodes/n1")
			said := ""
			for _, p := range c.problems(time.Now()) {
				said += p.Message
			}
			if (test.want == "") != (said == "") || !strings.Contains(said, test.want) {
				t.Errorf("of %d after %s is said %q, want %q", test.code, test.after, said, test.want)
			}
			pools := resourceName(pathPools, apiv3.Group)
			if changes != 1 || c.missing(pools) != (test.code == http.StatusNotFound) {
				t.Errorf("of %d, %d changes were told, and missing: %t", test.code, changes, c.missing(pools))
			}
			c.forget(pools)
			if c.missing(pools) || len(c.problems(time.Now())) != 0 {
				t.Error("what was forgotten is still known")
			}
		})
	}
}
