package nodes

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/verify"
)

// verifyPort is where `sallyport verify serve` listens outside.
const verifyPort = 3478

// testVerify asks from outside, as a user does on a node, with which address the connections of pods arrive.
func (r *rig) testVerify(t *testing.T) {
	program := filepath.Join(r.built, "sallyport")
	server := r.c.Outside.Command(t.Context(), program, "verify", "serve")
	labtest.Must(t, r.c.Outside.Start(server))
	t.Cleanup(func() { _ = server.Wait() }) // the context has killed it
	n := r.c.Nodes[0]
	text, err := os.ReadFile(program)
	labtest.Must(t, err)
	labtest.Must(t, n.WriteFile("root/program", string(text), 0o755))
	for family, outside := range r.c.OutsideAddresses {
		r.expectVerdict(t, n, r.on(n), outside, verify.TranslatedHere, n.Addresses[family])
	}
	public := r.public[slices.IndexFunc(r.public, func(e *entered) bool { return e.pod.Spec.NodeName == n.Name })]
	r.expectVerdict(t, n, public, r.c.OutsideAddresses[0], verify.Kept, public.addrs[0])
}

// expectVerdict makes sure that verify, on a pod's node, says what becomes of the pod's address, and which one arrives.
func (r *rig) expectVerdict(t *testing.T, n *Node, from *entered, outside netip.Addr, want verify.Kind, arrives netip.Addr) {
	t.Helper()
	out, exit := n.Run(t, "/root/program", "verify", "from", "--pod", podNamespace+"/"+from.pod.Name, netip.AddrPortFrom(outside, verifyPort).String(), "-o", "json")
	var report verify.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v, %v: %s", exit, err, out)
	}
	e := report.Evidence
	if report.Verdict != want || e.UDP.Arrived.Addr() != arrives || e.TCP.Arrived.Addr() != arrives || (exit == nil) != (want == verify.Kept) {
		t.Errorf("pod %s of node %s: %v, want %q and %s, but %s", from.pod.Name, n.Name, exit, want, arrives, out)
	}
}
