package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestPorts uses up the ports towards one destination, and looks for that in the status and the metrics.
func TestPorts(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const ranged = "---\napiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata:\n  name: ports\nspec:\n  portRange: 4000-4015\n"
	s.write("pods.yaml", poolsOfPod(true)+ranged)
	s.start()
	for range 40 {
		conn, err := s.pod.Dial(t.Context(), "udp", s.far[0].LocalAddr().String())
		labtest.Must(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("x"))
		labtest.Must(t, err)
	}
	s.write("more.yaml", fixedTo("")) // another plan, and so another examination
	out, err := s.waitFor(func(out string, err error) bool {
		return strings.Contains(out, "PortsUsedUp") && strings.Contains(out, "InsertFailures")
	})
	if err != nil {
		t.Fatalf("the problems do not show: %s", out)
	}
	seen := fmt.Sprintf("udp connections from %s to %s", pathNode[0], s.far[0].LocalAddr())
	for _, part := range []string{seen + ": 16 of 16 source ports are in use (100%)", "BUSIEST DESTINATION", "16 of 16 (100%)"} {
		if !strings.Contains(out, part) {
			t.Errorf("the status does not say %q:\n%s", part, out)
		}
	}
	got := s.status()
	if got.Conntrack.InsertFailed < 24 || got.Ports == nil || len(got.Ports.Destinations) == 0 || got.Ports.Destinations[0].Used != 16 {
		t.Errorf("status: %+v, %+v", got.Conntrack, got.Ports)
	}
	for _, metric := range []string{fmt.Sprintf(`sallyport_ports_used{address=%q,protocol="udp"} 16`, pathNode[0]),
		"sallyport_busiest_destination_ports_ratio 1", `sallyport_problem{kind="PortsUsedUp"} 1`} {
		if all := s.metrics(); !strings.Contains(all, "\n"+metric) {
			t.Errorf("the metrics do not say %s:\n%s", metric, all)
		}
	}
}

// fixedTo is a NATConfiguration that translates to an address.
func fixedTo(address string) string {
	return "---\napiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata:\n  name: fixed\nspec:\n  addresses: [" + address + "]\n"
}

// TestProblems makes problems on the node, and looks for them in the status and the metrics of the agent,
// which stays ready.
func TestProblems(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.write("pods.yaml", poolsOfPod(true)+fixedTo("203.0.113.77"))
	labtest.Must(t, s.node.Sysctl("ipv4/ip_forward", "0"), masqueradeBefore(s))
	s.start()
	out, err := s.waitFor(func(out string, err error) bool {
		return err == nil && strings.Contains(out, "ForwardingOff") && strings.Contains(out, "AddressMissing") && strings.Contains(out, "ForeignTranslation")
	})
	if err != nil {
		t.Fatalf("the problems do not show: %s", out)
	}
	for _, part := range []string{"this node, net.ipv4.ip_forward: is 0", "Remedy: sysctl -w net.ipv4.ip_forward=1",
		"NATConfiguration fixed, spec.addresses: this node does not have 203.0.113.77",
		"table ip others, chain nat, rule 1 (handle 2): \"masquerade\" catches connections between pools, such as from pool pods-v4",
		"and towards the outside, such as from pool pods-v4"} {
		if !strings.Contains(out, part) {
			t.Errorf("the status does not say %q:\n%s", part, out)
		}
	}
	for _, metric := range []string{`sallyport_problem{kind="ForwardingOff"} 1`, `sallyport_problem{kind="AddressMissing"} 1`,
		`sallyport_problem{kind="PoolOverlapsSubnet"} 0`, "sallyport_conntrack_limit "} {
		if all := s.metrics(); !strings.Contains(all, "\n"+metric) {
			t.Errorf("the metrics do not say %s:\n%s", metric, all)
		}
	}
	labtest.Must(t, s.node.Forward())
	s.write("pods.yaml", poolsOfPod(true))
	_, err = s.waitFor(func(string, error) bool {
		got := s.status()
		return !got.Examined.IsZero() && got.Conntrack != nil && !hasKind(got.Problems, diagnose.ForwardingOff) && !hasKind(got.Problems, diagnose.AddressMissing)
	})
	if err != nil {
		t.Errorf("problems that were mended still show: %+v", s.status())
	}
}

// masqueradeBefore puts a rule into somebody else's table that translates everything, before we do.
func masqueradeBefore(s *service) error {
	c, err := nftables.New(nftables.WithNetNSFd(s.node.FD()))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "others", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{Name: "nat", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityFilter})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{&expr.Masq{}}})
	return c.Flush()
}

func hasKind(problems []diagnose.Problem, kind diagnose.Kind) bool {
	for _, p := range problems {
		if p.Kind == kind {
			return true
		}
	}
	return false
}

// status is what the agent says of itself.
func (s *service) status() agent.Status {
	s.t.Helper()
	out, err := s.sallyport("status", "-o", "json")
	var got agent.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		s.t.Fatalf("reading the status %q: %v", out, err)
	}
	if err != nil {
		s.t.Logf("status: %v", err)
	}
	return got
}

// metrics are what Prometheus would read.
func (s *service) metrics() string {
	s.t.Helper()
	resp, err := s.node.HTTPClient().Get("http://127.0.0.1:9470/metrics")
	labtest.Must(s.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	labtest.Must(s.t, err)
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("metrics: %s\n%s", resp.Status, body)
	}
	return string(body)
}
