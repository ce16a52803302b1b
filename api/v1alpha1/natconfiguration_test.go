package v1alpha1

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sallyport/sallyport/internal/yaml"
)

// TestAbsentIsNotEmpty follows a spec through every way in which objects are read and written: a field that
// is absent must not come out as an empty one, nor an empty one as absent, since merging tells them apart.
func TestAbsentIsNotEmpty(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{
		`{}`,
		`{"addresses":[]}`,
		`{"outInterfaces":[]}`,
		`{"addresses":[],"outInterfaces":[]}`,
		`{"addresses":["192.0.2.1"],"exclusions":"IPPoolsOnly","nodeSelector":"all()","outInterfaces":["eth*"],"portAllocation":"Random","portRange":"1-2","priority":-1}`,
	} {
		document := `{"apiVersion":"sallyport.dev/v1alpha1","kind":"NATConfiguration","metadata":{"name":"c"},"spec":` + spec + `}`
		var read NATConfiguration
		if err := yaml.UnmarshalStrict([]byte(document), &read); err != nil {
			t.Fatalf("%s: %v", spec, err)
		}
		if (read.Spec.Exclusions != nil) != (read.Spec.PortRange != nil) {
			t.Errorf("%s: read as %+v", spec, read.Spec)
		}
		object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(read.DeepCopy())
		if err != nil {
			t.Fatalf("%s: %v", spec, err)
		}
		var back NATConfiguration
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, &back); err != nil {
			t.Fatalf("%s: %v", spec, err)
		}
		for way, value := range map[string]any{"the type": &read, "a deep copy": read.DeepCopy(), "unstructured": object, "the type from unstructured": &back} {
			if diff := cmp.Diff(plain(t, json.RawMessage(document)), plain(t, value)); diff != "" {
				t.Errorf("%s by %s (-want +got):\n%s", spec, way, diff)
			}
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
