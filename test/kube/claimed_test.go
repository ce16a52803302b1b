package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sallyport/sallyport/api/v1alpha1"
	control "github.com/sallyport/sallyport/internal/controller"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/test/chart"
)

// condition waits until the node n1 sees why a pool is allocatable, or is not.
func (v *claims) condition(t *testing.T, pool, reason, message string) {
	t.Helper()
	awaiting(t, fmt.Sprintf("n1 hears of the pool %s that it is %s %s", pool, reason, message), func() (bool, string) {
		got := v.a.state().Conditions[pool]
		return got.Reason == reason && strings.Contains(got.Message, message) && got.Allocatable == (reason == "OK"), fmt.Sprintf("%+v", got)
	})
}

// kept starts a controller, which takes up a new pool: agents claim blocks of it from then on.
func (v *claims) kept(t *testing.T) {
	v.kubectl(t, strings.ReplaceAll(servingPool("new", "10.20.0.0/16"), ", finalizers: [sallyport.dev/blocks]", ""), "apply", "-f", "-")
	v.condition(t, "new", "Pending", "has not said yet")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- control.Run(ctx, control.Options{Config: asAccount(v.whole, v.c, controllerAccount, "n1", "controller"), LeaseNamespace: chart.Namespace, NodeSelector: labels.Everything(),
			Network: true, AbsentAfter: absentAfter, UnknownAfter: absentAfter, Version: "0.1.0-dev", Log: slog.New(slog.DiscardHandler)})
	}()
	v.whole.Cleanup(func() {
		stop()
		labtest.Must(v.whole, <-ended)
	})
	v.condition(t, "new", "OK", "")
	awaiting(t, "a block of it can be claimed", func() (bool, string) {
		err := v.a.Claim(t.Context(), netip.MustParsePrefix("10.20.0.0/26"), "new")
		return err == nil, fmt.Sprint(err)
	})
	// What the controller has judged is of another generation, until it has judged again.
	v.kubectl(t, "", "patch", "ippool", "new", "--type=merge", "-p", `{"spec":{"natOutgoing":true}}`)
	v.condition(t, "new", "OK", "")
}

// terminating deletes a pool of which two nodes own blocks: it stays until the last is back.
func (v *claims) terminating(t *testing.T) {
	second := netip.MustParsePrefix("10.20.0.64/26")
	labtest.Must(t, v.b.Claim(t.Context(), second, "new"))
	v.kubectl(t, "", "delete", "ippool", "new", "--wait=false")
	v.condition(t, "new", "Terminating", "")
	var refused *datastore.RefusedError
	if err := v.a.Claim(t.Context(), netip.MustParsePrefix("10.20.1.0/26"), "new"); !errors.As(err, &refused) {
		t.Errorf("claiming of a pool that is being deleted: %v", err)
	}
	labtest.Must(t, v.a.GiveBack(t.Context(), netip.MustParsePrefix("10.20.0.0/26")))
	awaiting(t, "one block is left", func() (bool, string) { return v.b.owner(netip.MustParsePrefix("10.20.0.0/26")) == "", "" })
	if i := slices.IndexFunc(v.b.state().Snapshot.Pools, func(p *model.Pool) bool { return p.Name == "new" && p.Terminating && p.NATOutgoing }); i < 0 {
		t.Error("a pool that has a block is not in the Snapshot any more")
	}
	labtest.Must(t, v.b.GiveBack(t.Context(), second))
	awaiting(t, "the pool is gone", func() (bool, string) {
		out := v.kubectl(t, "", "get", "ippool", "new", "--ignore-not-found")
		return out == "", out
	})
}

// overlapping removes a pool by force while a node owns a block of it: another pool of the range waits for the block.
func (v *claims) overlapping(t *testing.T) {
	cidr := netip.MustParsePrefix("10.30.0.0/26")
	v.kubectl(t, servingPool("old", "10.30.0.0/16"), "apply", "-f", "-")
	v.condition(t, "old", "OK", "")
	labtest.Must(t, v.a.Claim(t.Context(), cidr, "old"))
	v.kubectl(t, "", "delete", "ippool", "old", "--wait=false")
	v.kubectl(t, "", "patch", "ippool", "old", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	v.kubectl(t, servingPool("next", "10.30.0.0/17"), "apply", "-f", "-")
	v.condition(t, "next", "CIDROverlap", "overlaps the block 10.30.0.0/26, which node n1 has from the pool old")
	labtest.Must(t, v.a.GiveBack(t.Context(), cidr))
	v.condition(t, "next", "OK", "")
}

// unavailable has a cloud say of n2 that it has no network: the controller clears that once the agent has the network ready, and
// nothing else of the Node.
func (v *claims) unavailable(t *testing.T) {
	labtest.Must(t, v.b.Announce(t.Context(), []netip.Addr{netip.MustParseAddr("192.0.2.2")}, nil))
	v.kubectl(t, "", "patch", "node", "n2", "--subresource=status", "-p", `{"status":{"conditions":[
		{"type":"MemoryPressure","status":"False","reason":"Enough"}, {"type":"NetworkUnavailable","status":"True","reason":"NoRouteCreated"}]}}`)
	conditions := func() string {
		return v.kubectl(t, "", "get", "node", "n2", "-o", "jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}, {end}")
	}
	report := func(ready metav1.ConditionStatus, reason string) {
		_, err := v.b.Renew(t.Context(), "")
		labtest.Must(t, err, v.b.Report(t.Context(), "", v1alpha1.SallyportNodeStatus{BootID: "boot-2", Conditions: []metav1.Condition{
			{Type: v1alpha1.SallyportNodeConditionReady, Status: ready, Reason: reason}}}))
	}
	report(metav1.ConditionFalse, v1alpha1.SallyportNodeReasonNotProgrammed)
	if got := conditions(); !strings.Contains(got, "NetworkUnavailable=True NoRouteCreated") {
		t.Errorf("before the agent is ready, the conditions are %s", got)
	}
	awaiting(t, "the condition is cleared", func() (bool, string) {
		report(metav1.ConditionTrue, v1alpha1.SallyportNodeReasonProgrammed) // again and again, since one that is silent is unknown
		got := conditions()
		return strings.Contains(got, "MemoryPressure=False Enough") && strings.Contains(got, "NetworkUnavailable=False SallyportReady"), got
	})
}

// absent deletes the Node of n2 and makes it again, then deletes it while its agent lives, and at last the agent is silent: the
// blocks go once both have been absent for long.
func (v *claims) absent(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.110.0/26")
	labtest.Must(t, v.b.Claim(t.Context(), cidr, "p"))
	v.kubectl(t, "", "delete", "node", "n2")
	v.kubectl(t, "apiVersion: v1\nkind: Node\nmetadata: {name: n2}\n", "apply", "-f", "-")
	labtest.Must(t, v.a.Claim(t.Context(), netip.MustParsePrefix("10.0.111.0/26"), "p")) // a while passes
	if v.a.owner(cidr) != "n2" {
		t.Error("a Node that was made again has lost a block")
	}
	v.kubectl(t, "", "delete", "node", "n2")
	awaiting(t, "the agent of n2 knows that its Node is gone", func() (bool, string) { return v.b.state().Self.Gone, fmt.Sprint(v.b.state().Self) })
	v.kubectl(t, "", "delete", "lease", "-n", chart.Namespace, kube.LeaseOf("n2")) // as the garbage collector does
	for from := time.Now(); time.Since(from) < absentAfter*3/2; time.Sleep(absentAfter / 20) {
		_, err := v.b.Renew(t.Context(), "")
		labtest.Must(t, err)
	}
	gone := time.Now()
	if v.a.owner(cidr) != "n2" {
		t.Error("a node whose agent lives has lost a block")
	}
	awaiting(t, "the blocks of n2 are free", func() (bool, string) {
		blocks := v.a.state().Snapshot.Blocks
		return !slices.ContainsFunc(blocks, func(b *model.Block) bool { return b.Node == "n2" }), fmt.Sprint(blocks)
	})
	if d := time.Since(gone); d < absentAfter {
		t.Errorf("the blocks of a node that is absent and silent are free after %s already", d)
	}
	if v.a.owner(netip.MustParsePrefix("10.0.111.0/26")) != "n1" {
		t.Error("n1, whose Node is there, has lost a block")
	}
	labtest.Must(t, v.a.Claim(t.Context(), cidr, "p"))
}
