package e2e

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// manager is a service manager's notification socket (sd_notify(3)).
type manager struct {
	t *testing.T
	*net.UnixConn
}

// hear waits for a message that says something, and returns all that was said until then.
func (m manager) hear(wanted string) []string {
	m.t.Helper()
	var said []string
	labtest.Must(m.t, m.SetReadDeadline(time.Now().Add(patience)))
	for b := make([]byte, 4096); ; {
		n, err := m.Read(b)
		if err != nil {
			m.t.Fatalf("the agent did not say %q: %v; it said %q", wanted, err, said)
		}
		said = append(said, strings.Split(string(b[:n]), "\n")...)
		if slices.Contains(said, wanted) {
			return said
		}
	}
}

// TestServiceManager starts the agent as systemd does and hears what it says: that it is ready once the
// kernel holds the manifests and no sooner, that it works, and that it stops.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	s := newService(t)
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	l, err := net.ListenUnixgram("unixgram", address)
	labtest.Must(t, err)
	defer l.Close()
	m := manager{t, l}
	s.write("pods.yaml", "{ not yaml")
	s.launch("NOTIFY_SOCKET="+address.Name, "WATCHDOG_USEC=100000")
	for range 3 {
		if said := m.hear("WATCHDOG=1"); slices.Contains(said, "READY=1") {
			t.Errorf("ready without a good state: %q", said)
		}
	}
	s.write("pods.yaml", poolsOfPod(true))
	if said := m.hear("READY=1"); !slices.Contains(said, "STATUS=ready; pools in force: 2") {
		t.Errorf("the agent said %q", said)
	}
	s.expect("ready", pathNode)
	m.hear("WATCHDOG=1")
	s.end(syscall.SIGTERM)
	m.hear("STOPPING=1")
}
