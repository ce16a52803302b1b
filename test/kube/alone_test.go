package kube

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
)

// two has an agent on another machine answer to the name of n1: it claims nothing, and the first one goes on.
func (v *claims) two(t *testing.T) {
	unknown, err := v.a.Renew(t.Context(), "")
	if unknown || err != nil {
		t.Errorf("renewing says %t, %v", unknown, err)
	}
	second := openNetwork(t, v.c, "n1", "boot-9")
	awaiting(t, "the second one knows of the first", func() (bool, string) {
		err := second.Alone()
		return err != nil && strings.Contains(err.Error(), "boot-1"), fmt.Sprint(err)
	})
	_, err = v.a.Renew(t.Context(), "")
	labtest.Must(t, err)
	awaiting(t, "the second one knows that the first lives", func() (bool, string) {
		err := second.Alone()
		return err != nil && strings.Contains(err.Error(), "give each machine a name of its own"), fmt.Sprint(err)
	})
	if err := second.Claim(t.Context(), netip.MustParsePrefix("10.0.104.0/26"), "p"); err == nil || !strings.Contains(err.Error(), "boot-1") {
		t.Errorf("the second one claims a block: %v", err)
	}
	if err := v.a.Alone(); err != nil {
		t.Errorf("the first one: %v", err)
	}
	again := openNetwork(t, v.c, "n1", "boot-1") // as where the agent is started again
	again.ready(t)
	v.kubectl(t, "", "annotate", "lease", "-n", chart.Namespace, "sallyport-node-n1", "--overwrite", "sallyport.dev/boot-id=boot-9")
	if _, err := v.a.Renew(t.Context(), ""); err == nil || v.a.Alone() == nil {
		t.Errorf("where the Lease was taken away, renewing says %v", err)
	}
}

// rebooted has a machine boot again: it goes on at once, and its agent of before does not.
func (v *claims) rebooted(t *testing.T) {
	start := time.Now()
	before := openMachine(t, v.c, "n3", "boot-1", "m", func() time.Time { return start })
	before.ready(t)
	_, err := before.Renew(t.Context(), "")
	labtest.Must(t, err)
	other := openMachine(t, v.c, "n3", "boot-2", "another", time.Now)
	awaiting(t, "another machine waits", func() (bool, string) {
		err := other.Alone()
		return err != nil && strings.Contains(err.Error(), "boot-1"), fmt.Sprint(err)
	})
	again := openMachine(t, v.c, "n3", "boot-3", "m", time.Now)
	awaiting(t, "the machine goes on without having waited", func() (bool, string) {
		err := again.Alone()
		if err != nil && strings.Contains(err.Error(), "takes over") {
			t.Fatalf("after a boot: %v", err)
		}
		return err == nil, fmt.Sprint(err)
	})
	if _, err := before.Renew(t.Context(), ""); err == nil || before.Alone() == nil {
		t.Errorf("the agent of before renews: %v", err)
	}
}
