package kube

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

func object(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: m}
}

func TestSlim(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, kind, text string
		fault            string
	}{
		{"a pool", datastore.KindIPPool, `{"metadata":{"name":"p","uid":"u","resourceVersion":"7","generation":2},"spec":{"cidr":"10.0.0.0/16","natOutgoing":true}}`, ""},
		{"a field of another type", datastore.KindIPPool, `{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16","natOutgoing":"yes"}}`, "spec.natOutgoing: is a string, which this version does not understand"},
		{"no range", datastore.KindIPPool, `{"metadata":{"name":"p"},"spec":{"cidr":"everything"}}`, "spec.cidr"},
		{"a use that is not known", datastore.KindIPPool, `{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16","allowedUses":["Moon"]}}`, "spec.allowedUses[0]"},
		{"no spec", datastore.KindIPPool, `{"metadata":{"name":"p"}}`, "spec.cidr"},
		{"a selector that cannot be read, which NAT does not depend on", datastore.KindIPPool, `{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16","nodeSelector":"("}}`, ""},
		{"a field that is not known", datastore.KindIPPool, `{"metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16","colour":"blue"}}`, ""},
		{"settings", datastore.KindNATConfiguration, `{"metadata":{"name":"c"},"spec":{"portRange":"1024-2047"}}`, ""},
		{"settings for nobody knows whom", datastore.KindNATConfiguration, `{"metadata":{"name":"c"},"spec":{"nodeSelector":"zone = a"}}`, "spec.nodeSelector: is not a selector: at character 6"},
		{"a range of ports that is none", datastore.KindNATConfiguration, `{"metadata":{"name":"c"},"spec":{"portRange":"9"}}`, "spec.portRange"},
	} {
		e := slim(test.kind, object(t, test.text), keeping{labels: true})
		switch {
		case test.fault == "" && (e.fault != nil || e.value == nil):
			t.Errorf("%s: %v", test.name, e.fault)
		case test.fault != "" && (e.fault == nil || !strings.Contains(e.fault.Error(), test.fault) || e.value != nil):
			t.Errorf("%s: fault %v, want one with %q", test.name, e.fault, test.fault)
		}
	}
}

func TestKeptEntries(t *testing.T) {
	t.Parallel()
	pool := slim(datastore.KindIPPool, object(t, `{"metadata":{"name":"p","uid":"u","resourceVersion":"7","generation":2,"creationTimestamp":"2026-01-02T03:04:05Z","deletionTimestamp":"2026-01-02T03:04:06Z","annotations":{"a":"b"}},
		"spec":{"cidr":"10.0.0.0/16"},"status":{"conditions":[{"type":"Other","status":"True"},{"type":"Allocatable","status":"True"}]}}`), keeping{labels: true})
	node := slim(datastore.KindNode, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "v", Labels: map[string]string{"zone": "a"}},
		Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: StartupTaint}, {Key: "other"}, {Key: StartupTaint}}}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeHostName, Address: "n"}}}}, keeping{labels: true})
	if p := pool.value.(*model.Pool); !p.WasAllocatable || !p.Terminating || p.Rank != 1767323045 {
		t.Errorf("%+v", p)
	}
	if len(node.taints) != 2 || node.taints[0] != 2 || node.taints[1] != 0 {
		t.Errorf("the start-up taint stands at %v, want 2 and 0", node.taints)
	}
	for _, e := range []*entry{pool, node} {
		again, err := decode(e.key(), e.json)
		if err != nil || !equal(again.value, e.value) || again.UID != e.UID || again.Generation != e.Generation && e == pool {
			t.Errorf("%v: %+v\nwas %+v", err, again, e)
		}
		if strings.Contains(string(e.json), "resourceVersion") {
			t.Errorf("a change of nothing but the status would be saved: %s", e.json)
		}
	}
}

// TestKeptByAnotherVersion opens what another version has kept: of it, only what this one understands is in force.
func TestKeptByAnotherVersion(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	var saved []*entry
	for name, spec := range map[string]string{"good": `{"cidr":"10.0.0.0/16"}`, "odd": `{"cidr":"10.1.0.0/16","allowedUses":["Telepathy"]}`} {
		e, err := decode(datastore.Key{Kind: datastore.KindIPPool, Name: name}, []byte(`{"kind":"IPPool","metadata":{"name":"`+name+`"},"spec":`+spec+`}`))
		if err != nil {
			t.Fatal(err)
		}
		saved = append(saved, e)
	}
	s.adopt(saved)
	if got := forms(s.kindOf(datastore.KindIPPool).view); len(got) != 1 || len(s.snapshot.Pools) != 1 || s.snapshot.Pools[0].Name != "good" {
		t.Errorf("in force are %v", got)
	}
	if _, err := decode(datastore.Key{Kind: datastore.KindIPPool, Name: "torn"}, []byte(`{"kind":`)); err == nil {
		t.Error("what is torn is taken for whole")
	}
}

// TestProgrammed: what the API says of a pool counts if it is of the pool as it is; a status of another form says nothing.
func TestProgrammed(t *testing.T) {
	t.Parallel()
	for status, want := range map[string]string{
		`{"conditions":[{"type":"Programmed","status":"True","reason":"Programmed","observedGeneration":2}]}`:                      "Programmed",
		`{"conditions":[{"type":"Allocatable"},{"type":"Programmed","status":"False","reason":"Pending","observedGeneration":2}]}`: "Pending",
		`{"conditions":[{"type":"Programmed","status":"True","reason":"Programmed","observedGeneration":1}]}`:                      "",
		`{"conditions":[{"type":"Programmed","reason":{},"observedGeneration":2}, 7]}`:                                             "",
		`{"conditions":{}}`: "",
		`null`:              "",
	} {
		var o unstructured.Unstructured
		if err := o.UnmarshalJSON([]byte(`{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"p","generation":2},"status":` + status + `}`)); err != nil {
			t.Fatal(err)
		}
		if got := programmed(&o); got != want {
			t.Errorf("of %s: %q, want %q", status, got, want)
		}
	}
}
