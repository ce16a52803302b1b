package validate

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate/validatetest"
	"github.com/sallyport/sallyport/internal/yaml"
)

// shared is the one validator of all tests: to compile its rules takes a while, and sharing it is what the agent does.
var shared = sync.OnceValue(New)

func newValidator(tb testing.TB) *Validator {
	tb.Helper()
	return shared()
}

// decode reads a document as the datastore does.
func decode(tb testing.TB, document string) map[string]any {
	tb.Helper()
	var data json.RawMessage
	err := yaml.Unmarshal([]byte(document), &data)
	if err != nil {
		tb.Fatalf("%v in\n%s", err, document)
	}
	var obj map[string]any
	if err := utiljson.Unmarshal(data, &obj); err != nil {
		tb.Fatalf("%v in\n%s", err, document)
	}
	return obj
}

// check compares faults with the field to blame; an empty field means that there is none. It also looks
// for jargon that a user should not see.
func check(t *testing.T, document string, faults []model.Fault, field, message string) {
	t.Helper()
	if field == "" {
		for _, f := range faults {
			t.Errorf("%s\nis valid, but: %s", document, f)
		}
		return
	}
	if len(faults) != 1 || faults[0].Field != field || !strings.Contains(faults[0].Message, message) {
		t.Errorf("%s\nwant one fault on %s, with %q; got %d:", document, field, message, len(faults))
		for _, f := range faults {
			t.Errorf("    %s", f)
		}
		return
	}
	for _, jargon := range []string{"in body", "regex", "rule:", "Invalid value", "expected", "self.", "\n"} {
		if strings.Contains(faults[0].Message, jargon) && !strings.Contains(faults[0].Message, "at character") {
			t.Errorf("%s\nthe message says %q: %s", document, jargon, faults[0].Message)
		}
	}
}

// run checks documents, none of which may be changed by the check.
func run(t *testing.T, document string, validate func(map[string]any) []model.Fault, field, message string) {
	t.Helper()
	obj, before := decode(t, document), decode(t, document)
	check(t, document, validate(obj), field, message)
	if !reflect.DeepEqual(obj, before) {
		t.Errorf("%s\nwas changed to %v", document, obj)
	}
}

// TestManyUnknownFields names some of them, and counts the rest.
func TestManyUnknownFields(t *testing.T) {
	t.Parallel()
	spec := map[string]any{"cidr": "10.0.0.0/16"}
	for i := range 3 * mostUnknown {
		spec[fmt.Sprintf("field%d", i)] = true
	}
	faults := newValidator(t).Create(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": map[string]any{"name": "a"}, "spec": spec})
	if n := len(faults); n != mostUnknown+1 || !strings.Contains(faults[0].Message, fmt.Sprintf("has %d more fields", 2*mostUnknown)) {
		t.Errorf("%d faults, the first is %v", n, faults[0])
	}
}

// TestPrepare compiles the rules of pools before the first one comes. Not parallel: it counts what the process allocates.
func TestPrepare(t *testing.T) {
	first := func(v *Validator) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		v.Create(decode(t, validatetest.Pool("{cidr: 10.244.0.0/16}")))
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	cold, prepared := New(), New()
	prepared.Prepare()
	if c, p := first(cold), first(prepared); p > c/10 {
		t.Errorf("the first pool takes %d bytes after Prepare, %d without", p, c)
	}
}
