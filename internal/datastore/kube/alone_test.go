package kube

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestAlone goes through what an agent may find in the Lease of its node, by a clock of the test's.
func TestAlone(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)
	type look struct {
		at      time.Duration // since start
		boot    string
		renewed time.Duration // likewise
		may     bool
		why     string
	}
	const unknown, lives = "takes over 1m15s later", "give each machine a name of its own"
	for name, looks := range map[string][]look{
		"its own":                 {{0, "mine", 0, true, ""}},
		"without owner":           {{0, "", 0, true, ""}},
		"of an earlier boot":      {{0, "other", -2 * time.Minute, false, unknown}, {74 * time.Second, "other", -2 * time.Minute, false, unknown}, {75 * time.Second, "other", -2 * time.Minute, true, ""}},
		"with a clock behind":     {{0, "other", -80 * time.Second, false, unknown}, {40 * time.Second, "other", -50 * time.Second, false, lives}},
		"of ten minutes ago":      {{0, "other", -10 * time.Minute, false, unknown}, {time.Second, "other", -10 * time.Minute, true, ""}},
		"of one just before":      {{0, "other", -time.Second, false, unknown}, {3 * time.Second, "other", -time.Second, false, unknown}, {74 * time.Second, "other", -time.Second, false, unknown}, {75 * time.Second, "other", -time.Second, true, ""}},
		"with a clock far ahead":  {{0, "other", time.Hour, false, unknown}, {74 * time.Second, "other", time.Hour, false, unknown}, {75 * time.Second, "other", time.Hour, true, ""}},
		"of one that lives":       {{0, "other", 0, false, unknown}, {40 * time.Second, "other", 30 * time.Second, false, lives}, {80 * time.Second, "other", 70 * time.Second, false, lives}},
		"of one that lived":       {{0, "other", 0, false, unknown}, {40 * time.Second, "other", 30 * time.Second, false, lives}, {114 * time.Second, "other", 30 * time.Second, false, lives}, {115 * time.Second, "other", 30 * time.Second, true, ""}},
		"with a clock far behind": {{0, "other", -time.Hour, true, ""}},
		"of one, and of another":  {{0, "other", 0, false, unknown}, {70 * time.Second, "third", 70 * time.Second, false, unknown}, {80 * time.Second, "third", 70 * time.Second, false, unknown}},
	} {
		a := &alone{boot: "mine", why: errNotSettled}
		for i, l := range looks {
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{leaseBoot: l.boot}},
				Spec: coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: start.Add(l.renewed)}}}
			if may := a.may(lease, start.Add(l.at)); may != l.may || !may && !strings.Contains(a.why.Error(), l.why) {
				t.Errorf("the Lease %s, look %d: %t, %v", name, i, may, a.why)
			}
		}
	}
}

// TestRebootedMachine: a machine takes over at once what it renewed itself before it booted, and nothing else.
func TestRebootedMachine(t *testing.T) {
	t.Parallel()
	boot := time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)
	const ours = "uuid cards"
	for name, test := range map[string]struct {
		machine  string        // of this agent
		sealed   string        // the machine that the Lease names
		sealedIn string        // and its boot
		renewed  time.Duration // since this boot
		may      bool
	}{
		"its own of before":                   {ours, ours, "earlier", -time.Second, true},
		"its own of before, by a clock ahead": {ours, ours, "earlier", time.Second, false},
		"that of a twin that lives":           {ours, ours, "earlier", 30 * time.Second, false},
		"of another machine":                  {ours, "uuid other", "earlier", -time.Second, false},
		"of one that is not known":            {ours, "", "earlier", -time.Second, false},
		"of another boot's than it says":      {ours, ours, "first", -time.Second, false},
		"where this machine is not known":     {"", ours, "earlier", -time.Second, false},
		"where neither is known":              {"", "", "earlier", -time.Second, false},
	} {
		a := &alone{boot: "mine", machine: test.machine, booted: func() time.Time { return boot }, why: errNotSettled}
		lease := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{leaseBoot: "earlier", leaseMachine: (&alone{machine: test.sealed}).seal(test.sealedIn)}},
			Spec:       coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: boot.Add(test.renewed)}}}
		if may := a.may(lease, boot.Add(40*time.Second)); may != test.may {
			t.Errorf("the Lease is %s: %t, %v", name, may, a.why)
		}
		lease.Spec.RenewTime = nil
		if a.may(lease, boot.Add(time.Minute)) {
			t.Errorf("the Lease is %s, and was never renewed: it is taken over at once", name)
		}
	}
}
