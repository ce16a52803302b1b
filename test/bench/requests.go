package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

// requests are how many there were, by verb and resource.
type requests map[string]float64

// counted are the resources that agents read and write; what else an API server is asked, it asks itself.
var counted = []string{"ippools", "natconfigurations", "nodes", "sallyportnodes", "leases", "customresourcedefinitions", "apiservices"}

var requestLine = regexp.MustCompile(`^apiserver_request_total\{.*resource="([a-z]+)".*verb="([A-Z]+)".*\} (\S+)$`)

// served reads what an API server has answered. A watch counts when it ends.
func served(ctx context.Context, cfg *rest.Config) (requests, error) {
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	b, err := get(ctx, client, cfg.Host+"/metrics")
	if err != nil {
		return nil, err
	}
	out := requests{}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		m := requestLine.FindStringSubmatch(lines.Text())
		if m == nil || !slices.Contains(counted, m[1]) {
			continue
		}
		n, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, err
		}
		out[m[2]+" "+m[1]] += n
	}
	return out, nil
}

// since is what came after an earlier look.
func (r requests) since(before requests) requests {
	out := requests{}
	for what, n := range r {
		if d := n - before[what]; d > 0 {
			out[what] = d
		}
	}
	return out
}

func (r requests) total() (sum float64) {
	for _, n := range r {
		sum += n
	}
	return sum
}

// by says how many there were, each divided by something.
func (r requests) by(n float64) string {
	var out []string
	for _, what := range slices.Sorted(maps.Keys(r)) {
		out = append(out, fmt.Sprintf("%s %.4g", what, r[what]/n))
	}
	if out == nil {
		return "none"
	}
	return strings.Join(out, ", ")
}

// traffic is what a fleet of agents sends and receives.
type traffic struct {
	connections, open, received atomic.Int64 // made, standing, and bytes

	mu     sync.Mutex
	begun  time.Time
	asked  requests // since begin, by verb and resource as the agents see them, failures included
	second []int    // requests in each second since begin
}

// begin forgets what was asked before.
func (t *traffic) begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun, t.asked, t.second = time.Now(), requests{}, nil
}

// so returns what was asked since begin, and how many requests the busiest second had.
func (t *traffic) so() (requests, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.asked), slices.Max(append(slices.Clone(t.second), 0))
}

// config makes a client's connections and requests be counted.
func (t *traffic) config(cfg *rest.Config) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	dial := cfg.Dial
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		t.connections.Add(1)
		t.open.Add(1)
		return &countedConn{Conn: c, traffic: t}, nil
	}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &countedTransport{next, t} })
	return cfg
}

type countedConn struct {
	net.Conn
	traffic *traffic
	closed  sync.Once
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.traffic.received.Add(int64(n))
	return n, err
}

func (c *countedConn) Close() error {
	c.closed.Do(func() { c.traffic.open.Add(-1) })
	return c.Conn.Close()
}

type countedTransport struct {
	next    http.RoundTripper
	traffic *traffic
}

func (c *countedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	verb := req.Method
	if req.URL.Query().Get("watch") != "" {
		verb = "WATCH"
	}
	resource := "other"
	for _, part := range strings.Split(req.URL.Path, "/") {
		if slices.Contains(counted, part) {
			resource = part
		}
	}
	t := c.traffic
	t.mu.Lock()
	if !t.begun.IsZero() {
		t.asked[verb+" "+resource]++
		at := int(time.Since(t.begun) / time.Second)
		for len(t.second) <= at {
			t.second = append(t.second, 0)
		}
		t.second[at]++
	}
	t.mu.Unlock()
	return c.next.RoundTrip(req)
}
