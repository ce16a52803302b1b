package v3

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sallyport/sallyport/internal/yaml"
)

// TestRoundTrip reads and writes pools as Calico's own client would store them.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, document := range []string{
		`{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16"}}`,
		`{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.0/16","vxlanMode":"Always","ipipMode":"Never","natOutgoing":true,"disabled":true,"disableBGPExport":true,"blockSize":26,"nodeSelector":"all()","namespaceSelector":"has(a)","allowedUses":["Workload"],"assignmentMode":"Manual"},"status":{"conditions":[{"type":"Allocatable","status":"False","lastTransitionTime":"2026-01-02T03:04:05Z","reason":"CIDROverlap","message":"overlaps q"}]}}`,
	} {
		var pool IPPool
		if err := yaml.UnmarshalStrict([]byte(document), &pool); err != nil {
			t.Fatalf("%s: %v", document, err)
		}
		if diff := cmp.Diff(plain(t, json.RawMessage(document)), plain(t, pool.DeepCopy())); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestScheme(t *testing.T) {
	t.Parallel()
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"IPPool", "IPPoolList"} {
		if _, err := scheme.New(GroupVersion().WithKind(kind)); err != nil {
			t.Error(err)
		}
	}
}

// plain returns what a value is in JSON, without the order of fields.
func plain(t *testing.T, value any) (out any) {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
