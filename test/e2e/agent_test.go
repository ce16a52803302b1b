package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestRestart ends the agent both ways and starts it again: the rules stay, the counters go on, and so
// do the connections.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	s.start()
	s.expect("with the agent", pathNode)
	talks := []talk{s.talk(0), s.talk(1)}
	want := uint64(4)
	for _, by := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if got := s.connections(); got != want {
			t.Errorf("before %v %d translated connections were counted, want %d", by, got, want)
		}
		s.end(by)
		s.expect("without the agent", pathNode)
		s.goesOn("without the agent", talks...)
		s.start()
		s.goesOn("with the new agent", talks...)
		s.expect("with the new agent", pathNode)
		want += 4
		if got := s.connections(); got != want {
			t.Errorf("after %v %d translated connections were counted, want %d: four more", by, got, want)
		}
	}
}

// TestChange changes manifests under a running agent, and measures how long packets take to show it.
func TestChange(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.start()
	s.expect("without pools", pathPod)
	for _, step := range []struct {
		text string
		want [2]netip.Addr
	}{
		{poolsOfPod(true), pathNode},
		{poolsOfPod(false), pathPod},
		{poolsOfPod(true), pathNode},
		{"# none\n", pathPod},
	} {
		s.write("pods.yaml", step.text)
		t.Logf("%v from manifest to packet", s.expectSoon("after a change", step.want))
	}
	s.write("pods.yaml", poolsOfPod(true))
	s.expectSoon("after a change", pathNode)
	labtest.Must(t, os.Remove(filepath.Join(s.dir, "pods.yaml")))
	s.expectSoon("without the file", pathPod)
}

// TestStatusAfterAChange makes sure that who changes the manifests and asks at once is not told how it was before.
func TestStatusAfterAChange(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.start()
	for i := range 2 {
		s.write("pods.yaml", poolsOfPod(true))
		if out, err := s.sallyport("status"); err != nil || !strings.Contains(out, "2 pools") {
			t.Errorf("round %d: after two pools were made: %v\n%s", i, err, out)
		}
		s.write("pods.yaml", poolsOfPod(false)+"---\napiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata: {name: mine}\nspec: {portRange: 2000-2999}\n")
		out, err := s.sallyport("explain", "10.0.0.1", "192.0.2.1", "-o", "json")
		for _, want := range []string{`"action": "keep"`, `"decidedBy": "agent"`, `"state": "same"`, `"natConfiguration": "mine"`} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("round %d: explain after a change: %v, want %s in\n%s", i, err, want, out)
			}
		}
		s.write("pods.yaml", poolsOfPod(true))
		_, err = s.sallyport("delete", "ippool", "pods-v4")
		labtest.Must(t, err)
		if out, err := s.sallyport("status"); err != nil || !strings.Contains(out, "1 pools") {
			t.Errorf("round %d: after one was deleted: %v\n%s", i, err, out)
		}
		out, err = s.sallyport("delete", "ippool", "pods-v6", "--wait", "5s")
		labtest.Must(t, err)
		if got := s.translates(); got {
			t.Errorf("round %d: delete --wait has come back, and the kernel still translates: %s", i, out)
		}
	}
	half, err := os.Create(filepath.Join(s.dir, "half.yaml"))
	labtest.Must(t, err)
	defer half.Close()
	if out, err := s.sallyport("status"); err == nil || !strings.Contains(out, "half.yaml") {
		t.Errorf("while a file is being written: %v\n%s", err, out)
	}
}

// translates says whether any source is translated by what the agent has put into the kernel.
func (s *service) translates() bool {
	s.t.Helper()
	return slices.ContainsFunc(s.kernelObjects(), func(name string) bool {
		return strings.HasPrefix(name, "set sallyport source") && !strings.HasSuffix(name, ": 0 elements")
	})
}

// TestFaultyFile makes sure that a typo never removes NAT: not under a running agent, not after a restart.
func TestFaultyFile(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	s.start()
	for _, c := range []struct{ name, faulty, mended string }{
		{"pods.yaml", strings.ReplaceAll(poolsOfPod(false), "natOutgoing", "natOutgoign"), poolsOfPod(true)},
		{"other.yaml", "{ not yaml", "# nothing\n"},
	} {
		name := c.name
		s.write(name, c.faulty)
		s.expectReported(name)
		s.expect("with a faulty "+name, pathNode)
		s.end(syscall.SIGTERM)
		s.startFaulty()
		s.expectReported(name)
		s.expect("after a restart with a faulty "+name, pathNode)
		s.write(name, c.mended)
		if out, err := s.waitFor(func(out string, err error) bool { return err == nil }); err != nil {
			t.Errorf("the mended %s is still reported: %s", name, out)
		}
	}
	s.expect("with mended files", pathNode)
}

// startFaulty runs the agent on files that are known to be faulty: it must be ready all the same, from
// the last good state.
func (s *service) startFaulty() {
	s.t.Helper()
	s.launch()
	_, err := s.waitFor(func(string, error) bool { return s.readyz() == http.StatusOK })
	labtest.Must(s.t, err)
}

// readyz is the agent's answer to a probe of readiness, or 0 where it does not answer.
func (s *service) readyz() int {
	resp, err := s.node.HTTPClient().Get("http://127.0.0.1:9470/readyz")
	if err != nil {
		return 0
	}
	labtest.Must(s.t, resp.Body.Close())
	return resp.StatusCode
}

// expectReported waits until the status names a faulty file.
func (s *service) expectReported(file string) {
	s.t.Helper()
	out, err := s.waitFor(func(out string, err error) bool { return err != nil && strings.Contains(out, file) })
	if err != nil {
		s.t.Errorf("the status does not report %s: %s", file, out)
	}
}

// waitFor asks for the status until it is as wanted, for the time of patience.
func (s *service) waitFor(wanted func(out string, err error) bool) (string, error) {
	for start := time.Now(); ; {
		out, err := s.sallyport("status")
		if wanted(out, err) {
			return out, nil
		}
		if time.Since(start) > patience {
			return out, errors.New("the status did not become what it should be")
		}
	}
}

// addForeignTable puts somebody else's table, of a name near ours, into the node's kernel.
func addForeignTable(s *service) error {
	c, err := nftables.New(nftables.WithNetNSFd(s.node.FD()))
	if err != nil {
		return err
	}
	accept := nftables.ChainPolicyAccept
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyIPv4} {
		table := c.AddTable(&nftables.Table{Name: "sallyport2", Family: family})
		c.AddChain(&nftables.Chain{Name: "nat", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting,
			Priority: nftables.ChainPriorityNATSource, Policy: &accept})
		set := &nftables.Set{Name: "sources", Table: table, KeyType: nftables.TypeIPAddr}
		if err := c.AddSet(set, []nftables.SetElement{{Key: []byte{10, 0, 0, 1}}}); err != nil {
			return err
		}
	}
	return c.Flush()
}

// kernelObjects names every table, chain, set and set element count of the node's kernel.
func (s *service) kernelObjects() []string {
	s.t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(s.node.FD()))
	labtest.Must(s.t, err)
	tables, err := c.ListTables()
	labtest.Must(s.t, err)
	var names []string
	for _, table := range tables {
		sets, err := c.GetSets(table)
		labtest.Must(s.t, err)
		names = append(names, fmt.Sprintf("table %d %s", table.Family, table.Name))
		for _, set := range sets {
			elements, err := c.GetSetElements(set)
			labtest.Must(s.t, err)
			names = append(names, fmt.Sprintf("set %s %s: %d elements", table.Name, set.Name, len(elements)))
		}
	}
	chains, err := c.ListChains()
	labtest.Must(s.t, err)
	for _, chain := range chains {
		rules, err := c.GetRules(chain.Table, chain)
		labtest.Must(s.t, err)
		names = append(names, fmt.Sprintf("chain %d %s %s: %d rules", chain.Table.Family, chain.Table.Name, chain.Name, len(rules)))
	}
	slices.Sort(names)
	return names
}

// TestProbes asks the agent's HTTP endpoints.
func TestProbes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true))
	s.start()
	s.expect("with the agent", pathNode)
	for url, want := range map[string]string{
		"/healthz": "", "/readyz": "", "/metrics": `sallyport_translated_connections_total{pool="pods-v4"} 1` + "\n",
	} {
		resp, err := s.node.HTTPClient().Get("http://127.0.0.1:9470" + url)
		labtest.Must(t, err)
		body, err := io.ReadAll(resp.Body)
		labtest.Must(t, err, resp.Body.Close())
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, without %q\n%s", url, resp.Status, want, body)
		}
	}
}
