package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

// transports are the protocols with ports whose connections the node's kernel can tell apart: TCP, UDP,
// and SCTP where it is built for that. The rig must have been programmed, so that connections are tracked.
func (r *rig) transports(t *testing.T) []compile.Protocol {
	t.Helper()
	list := []compile.Protocol{compile.TCP, compile.UDP}
	labtest.Must(t, r.node.Do(func() error {
		if tracksSCTP("/proc/sys/net/netfilter") {
			list = append(list, compile.SCTP)
		}
		return nil
	}))
	return list
}

// tracksSCTP says whether connection tracking, whose settings are in a directory, knows SCTP. Where no
// settings show, as in some user namespaces, it is taken to.
func tracksSCTP(settings string) bool {
	_, sctp := os.Stat(filepath.Join(settings, "nf_conntrack_sctp_timeout_established"))
	_, tcp := os.Stat(filepath.Join(settings, "nf_conntrack_tcp_timeout_established"))
	return sctp == nil || tcp != nil
}

// TestSCTP makes sure that SCTP is among what the other tests send, or says why not.
func TestSCTP(t *testing.T) {
	t.Parallel()
	r, plan := portsRig(t, &model.PortRange{First: 40000, Last: 40100}, model.PortsFullyRandom, false)
	if len(r.transports(t)) < 3 {
		t.Skip("kernel feature missing: connection tracking of SCTP (CONFIG_NF_CT_PROTO_SCTP)")
	}
	var ps probes
	for family := range 2 {
		r.try(t, &ps, plan, fromPods(r, family, compile.SCTP, 10, 5000))
	}
}

// TestTracksSCTP looks at the settings of kernels with and without it.
func TestTracksSCTP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		settings []string
		want     bool
	}{
		{[]string{"nf_conntrack_tcp_timeout_established", "nf_conntrack_sctp_timeout_established"}, true},
		{[]string{"nf_conntrack_tcp_timeout_established"}, false},
		{nil, true},
	} {
		dir := t.TempDir()
		for _, name := range c.settings {
			labtest.Must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
		}
		if got := tracksSCTP(dir); got != c.want {
			t.Errorf("with %v: %t, want %t", c.settings, got, c.want)
		}
	}
}
