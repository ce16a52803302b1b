package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/text"
)

// ErrNoAgent says that no agent answers on the socket.
var ErrNoAgent = errors.New("no agent is running there; start one with: sallyport run")

// patience is how long an answer may take, beside the time that the agent was asked to wait. A status of
// 100,000 pools takes seconds.
const patience = 30 * time.Second

// glance is how long the answer to a question may take for which the agent has all at hand, and without which the
// asker goes on.
const glance = 3 * time.Second

// Bounds on what a client reads of an answer, in bytes.
const (
	// maxList is for answers that grow with the number of pools: a status of 100,000 takes a third.
	maxList = 128 << 20
	// maxAnswer is for all others.
	maxAnswer = 1 << 20
	// maxRefusal is for a refusal.
	maxRefusal = 1 << 16
)

// refusedError is what an agent says that does not do what it was asked for.
type refusedError struct{ said string }

func (e *refusedError) Error() string { return "the agent refused: " + e.said }

// Client speaks with an agent over its socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the agent whose socket has this path. It connects with each call.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		DisableKeepAlives:     true,
		ExpectContinueTimeout: 24 * time.Hour, // without it, the body would be sent to an agent that has not begun
	}}}
}

// Status asks how the node stands, once it is ready or after the time given, which is for a change that was just made.
func (c *Client) Status(ctx context.Context, settle time.Duration) (*Status, error) {
	return c.status(ctx, settle, settle+patience)
}

// WaitReady asks for the status as soon as the node is ready, or at the end of the time given, which all of it takes at
// most.
func (c *Client) WaitReady(ctx context.Context, within time.Duration) (*Status, error) {
	return c.status(ctx, asked(within), within)
}

func (c *Client) status(ctx context.Context, wait, limit time.Duration) (*Status, error) {
	var s Status
	return &s, c.callWithin(ctx, limit, http.MethodGet, "/v1/status?wait="+url.QueryEscape(wait.String()), nil, &s, maxList)
}

// Wait asks until the agent holds the objects in the kernel, or the time is over, which all of it takes at most; of less than a second
// it takes one, so that it is known whether an agent runs.
func (c *Client) Wait(ctx context.Context, objects []ObjectDigest, within time.Duration) (*WaitResponse, error) {
	var r WaitResponse
	return &r, c.callWithin(ctx, max(within, time.Second), http.MethodPost, "/v1/wait", WaitRequest{Objects: objects, Seconds: asked(within).Seconds()}, &r, maxAnswer)
}

// asked is how long an agent is asked to wait, so that its answer comes within a time.
func asked(within time.Duration) time.Duration {
	return max(0, within-min(within/3, countPatience+250*time.Millisecond))
}

// Explain asks what the plan that the agent holds does to a flow.
func (c *Client) Explain(ctx context.Context, f compile.Flow) (*ExplainResponse, error) {
	q := url.Values{
		"source": {f.Source.String()}, "destination": {f.Destination.String()},
		"protocol": {strconv.Itoa(int(f.Protocol))}, "port": {strconv.Itoa(int(f.DestinationPort))}, "outInterface": {f.OutInterface},
	}
	var r ExplainResponse
	return &r, c.callWithin(ctx, glance, http.MethodGet, "/v1/explain?"+q.Encode(), nil, &r, maxAnswer)
}

// Objects asks for the objects of a kind that the agent holds; for those with the names given, where there are any.
func (c *Client) Objects(ctx context.Context, kind string, names []string) (*ObjectsResponse, error) {
	var r ObjectsResponse
	return &r, c.callWithin(ctx, lookPatience+glance, http.MethodGet, "/v1/objects?"+url.Values{"kind": {kind}, "name": names}.Encode(), nil, &r, maxList)
}

// expectContinue makes an agent ask for a request's body before the client sends it. What was given up before the agent
// began, it never sees.
const expectContinue = "100-continue"

// Cleanup asks the agent to remove what it has put into the kernel, within the time given, and to end. It returns before
// the agent has ended. With an error the agent goes on, and puts back what it had removed.
func (c *Client) Cleanup(ctx context.Context, within time.Duration) error {
	var nothing struct{}
	return c.callWithin(ctx, within+glance, http.MethodPost, "/v1/cleanup", CleanupRequest{Seconds: within.Seconds()}, &nothing, maxAnswer)
}

// Running says whether an agent holds the socket, also one that answers nothing or not to us.
func (c *Client) Running(ctx context.Context) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil || errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EAGAIN) // EAGAIN: it accepts nobody any more
}

// callWithin gives up after some time, since an agent may hang, and on an answer of more bytes than most.
func (c *Client) callWithin(ctx context.Context, limit time.Duration, method, path string, in, out any, most int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, c.silence(limit))
	defer cancel()
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("reading the agent's answer: %w", err)
	case int64(len(b)) > most:
		return c.tooLong("answer", most)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("reading the agent's answer: %w", err)
	}
	return nil
}

// tooLong is the error of a call whose answer has no end in sight.
func (c *Client) tooLong(part string, most int64) error {
	return fmt.Errorf("what listens on %s gives an %s of more than %d bytes, as no agent does: check which program it is", c.socket, part, most)
}

// silence is the error of a call that the agent does not answer.
func (c *Client) silence(limit time.Duration) error {
	return fmt.Errorf("the agent on %s runs, but gives no answer within %s; its log may say why", c.socket, limit.Round(time.Millisecond))
}

// do asks the agent. The answer's body, which the caller closes, is what was asked for.
func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("asking the agent: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, fmt.Errorf("asking the agent: %w", err)
	}
	if in != nil {
		req.Header.Set("Expect", expectContinue)
	}
	resp, err := c.http.Do(req)
	var op *net.OpError
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &op) && op.Op == "dial" && errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("asking the agent on %s: permission denied; try it as root", c.socket)
	case errors.As(err, &op) && op.Op == "dial":
		return nil, fmt.Errorf("asking the agent on %s: %w", c.socket, ErrNoAgent)
	case err != nil:
		return nil, fmt.Errorf("asking the agent on %s: %w", c.socket, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		return nil, fmt.Errorf("reading the agent's answer: %w", err)
	}
	return nil, &refusedError{text.Line(strings.TrimSpace(string(b)))}
}
