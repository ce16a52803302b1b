package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

const peersOfRouter = `apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: router
spec:
  peerIP: 192.0.2.254
  asNumber: 64513
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: silent
spec:
  peerIP: 192.0.2.77
  asNumber: 64514
`

const configOfRouter = `router id 192.0.2.254;
protocol device {}
protocol static { ipv4; route 0.0.0.0/0 unreachable; route 203.0.113.0/24 unreachable; route 198.51.100.0/24 unreachable; }
protocol bgp node { local as 64513; neighbor 192.0.2.1 as 64512; connect retry time 1; ipv4 { import all; export all; next hop self; }; }
`

// said is what a command of the program prints, and its exit code.
func (n *cniNode) said(args ...string) (out string, code int) {
	n.t.Helper()
	cmd := n.command(n.t.Context(), args...)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	labtest.Must(n.t, n.node.Start(cmd))
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		n.t.Fatal(err)
	}
	return text.String(), cmd.ProcessState.ExitCode()
}

// says waits until what a command prints has some texts, where runs of white space are one space, and the command ends with a code.
func (n *cniNode) says(code int, args []string, texts ...string) {
	n.t.Helper()
	eventually(n.t, func() error {
		out, got := n.said(args...)
		flat := strings.Join(strings.Fields(out), " ")
		for _, text := range texts {
			text, not := strings.CutPrefix(text, "!")
			if strings.Contains(flat, text) == not {
				return fmt.Errorf("%s: %q (%v) in\n%s", strings.Join(args, " "), text, !not, out)
			}
		}
		if got != code {
			return fmt.Errorf("%s: exit code %d, want %d:\n%s", strings.Join(args, " "), got, code, out)
		}
		return nil
	})
}

// bird runs a router at the host outside.
func (n *cniNode) bird(config string) {
	n.t.Helper()
	file := filepath.Join(n.home, "bird.conf")
	labtest.Must(n.t, os.WriteFile(file, []byte(config), 0o600))
	cmd := n.outside.Command(context.Background(), "/usr/sbin/bird", "-f", "-c", file, "-s", filepath.Join(n.home, "bird.ctl"))
	labtest.Must(n.t, n.outside.Start(cmd))
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// TestPeopleSeeBGP asks the program how its sessions stand: without peers, with a router and a peer that is silent, and with routes that
// do not come through.
func TestPeopleSeeBGP(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	n := newCNINode(t, cniPools("10.77.0.0/24", ""))
	n.start()
	n.says(0, []string{"bgp"}, "Node node does not speak BGP: no BGPPeer has a session with this node")
	n.bird(configOfRouter)
	pod := n.pod("p")
	_, addresses, err := n.add(n.list("1.0.0", nil), pod)
	labtest.Must(t, err)
	labtest.Must(t, os.WriteFile(filepath.Join(n.home, "resources", "peers.yaml"), []byte(peersOfRouter), 0o644))
	block := netip.PrefixFrom(addresses[0], 26).Masked().String()

	t.Log("a stranger's route wins")
	stranger := n.node.Command(t.Context(), "ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.254", "proto", "static")
	labtest.Must(t, n.node.Start(stranger))
	labtest.Must(t, stranger.Wait())
	n.says(1, []string{"bgp"}, "Node node speaks BGP as AS 64512, router ID ", " and listens at 0.0.0.0:179 and [::]:179.",
		"192.0.2.77 BGPPeer silent 64514 DOWN (Active) - 0 0 0 0 no connection yet: the peer does not answer",
		"192.0.2.254 BGPPeer router 64513 up", "3 2 1 0 -",
		block+" v4 to 1 of 2 peers - not to 192.0.2.77: the session is down",
		"198.51.100.0/24 192.0.2.254 203.0.113.0/24 192.0.2.254", "0.0.0.0/0 192.0.2.254 no BGPFilter accepts the default route",
		"198.51.100.0/24 - the kernel prefers the route of another program (protocol 4, metric 0)")
	n.says(0, []string{"status"}, "BGP: 1 of 2 sessions are up; 1 blocks are announced, 0 withheld; 2 routes are learned", "silent, 192.0.2.77: no connection yet")

	t.Log("as JSON")
	out, code := n.said("bgp", "-o", "json")
	var r struct {
		Running  bool
		Sessions []struct {
			Peer, BGPPeer, State, Since string
			Up                          bool
		}
		Refused []struct{ By, Prefix, Why string }
	}
	labtest.Must(t, json.Unmarshal([]byte(out), &r))
	if code != 1 || !r.Running || len(r.Sessions) != 2 || r.Sessions[1].Peer != "192.0.2.254" || r.Sessions[1].BGPPeer != "router" || !r.Sessions[1].Up ||
		r.Sessions[1].State != "Established" || r.Sessions[1].Since == "" || len(r.Refused) != 2 || r.Refused[0].By != "policy" || r.Refused[1].By != "kernel" {
		t.Errorf("exit code %d, %s", code, out)
	}

	t.Log("a password that cannot be read keeps no node from being ready")
	labtest.Must(t, os.WriteFile(filepath.Join(n.home, "resources", "peers.yaml"), []byte(strings.Replace(peersOfRouter, "  asNumber: 64514\n",
		"  asNumber: 64514\n  password:\n    secretKeyRef:\n      name: none\n      key: none\n", 1)), 0o644))
	n.says(1, []string{"bgp"}, "192.0.2.77 BGPPeer silent 64514 DOWN", " 0 0 0 0 ", "password", "192.0.2.254 BGPPeer router 64513 up")
	n.says(0, []string{"status"}, "Ready: yes", "Driver bgp: ready")

	t.Log("a block of a pool that is not for BGP")
	labtest.Must(t, os.WriteFile(filepath.Join(n.home, "resources", "pools.yaml"), []byte(cniPools("10.77.0.0/24", "")+"  disableBGPExport: true\n"), 0o644))
	n.says(1, []string{"bgp"}, block+" v4 NO - pool v4 has disableBGPExport: true")
}
