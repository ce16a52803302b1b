package workload

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestOtherNamespaces hands over namespaces and sockets that are not the container's. None of them is touched.
func TestOtherNamespaces(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	w, other := n.newPod(1), n.newPod(2)
	node := &pod{Host: n.Host}
	open := func(p *pod) (ns, sock *os.File) {
		ns, sock, err := p.files()
		labtest.Must(t, err)
		t.Cleanup(func() { _, _ = ns.Close(), sock.Close() })
		return ns, sock
	}
	state := func() (list []string) {
		for _, h := range []*lab.Host{n.Host, w.Host, other.Host} {
			list = append(list, in(t, h, "ip", "address"), in(t, h, "ip", "route"), in(t, h, "ip", "-6", "route"))
		}
		return list
	}
	before := state()
	podNS, podSock := open(w)
	nodeNS, nodeSock := open(node)
	_, nodeSock2 := open(node)
	_, otherSock := open(other)
	for _, c := range []struct {
		name     string
		ns, sock *os.File
		want     string
	}{
		{"the node's", nodeNS, nodeSock, "the network namespace is the node's own"},
		{"a socket of the node", podNS, nodeSock2, "the rtnetlink socket was opened in another network namespace"},
		{"a socket of another pod", podNS, otherSock, "the rtnetlink socket was opened in another network namespace"},
		{"no socket", podNS, null(t), unix.ENOTTY.Error()},
		{"no namespace", null(t), podSock, "the file is no network namespace"},
	} {
		if _, err := n.driver.Add(t.Context(), w.Workload, c.ns, c.sock, 1400); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		for i, now := range state() {
			if now != before[i] {
				t.Errorf("%s: %s has become %s", c.name, before[i], now)
			}
		}
	}
}

func null(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	labtest.Must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}
