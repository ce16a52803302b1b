package validate

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuraldefaulting "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"

	"github.com/sallyport/sallyport/api/crds"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate/validatetest"
	"github.com/sallyport/sallyport/internal/yaml"
)

// calico compiles Calico's definition of IPPool and returns a judge by it: what an API server that has it says of a
// spec, or of one that replaces another. Its rules rely on defaults, which are filled in first.
func calico(t *testing.T) func(obj, old map[string]any) []model.Fault {
	t.Helper()
	d, err := compile(os.DirFS("testdata"), "calico_ippools.yaml")
	if err != nil {
		t.Fatal(err)
	}
	filled := func(obj map[string]any) map[string]any {
		obj = normalizeObject(obj)
		if obj != nil {
			structuraldefaulting.Default(obj, d.structural)
		}
		return obj
	}
	return func(obj, old map[string]any) []model.Fault {
		return d.judge(context.Background(), filled(obj), filled(old))
	}
}

// TestCalico judges one table of specs and updates by Calico's definition and by Sallyport's. Where they differ, the
// list of differences has the case and the reason.
func TestCalico(t *testing.T) {
	t.Parallel()
	v, theirs := newValidator(t), calico(t)
	known := map[string]*validatetest.Difference{}
	differences := validatetest.Differences()
	for i := range differences {
		for _, c := range differences[i].Cases {
			if known[c] != nil {
				t.Errorf("%s stands in the list twice", c)
			}
			known[c] = &differences[i]
		}
	}
	count, differ, accepted := 0, 0, 0
	compare := func(name string, obj, old map[string]any) {
		count++
		ours, calicos := v.Create(obj), theirs(obj, old)
		if old != nil {
			ours = v.Update(obj, old)
		}
		if len(ours) == 0 {
			accepted++
		}
		d := known[name]
		delete(known, name)
		switch same := (len(ours) == 0) == (len(calicos) == 0); {
		case same && d != nil:
			t.Errorf("%s: both say the same (%v), and the list of differences has it", name, ours)
		case !same:
			differ++
			if d == nil || d.Accepted != (len(ours) == 0) {
				t.Errorf("%s:\n  Sallyport says %v\n  Calico says %v\n  and the list of differences does not have it so", name, ours, calicos)
			}
		}
	}
	creations, updates := validatetest.Calico()
	for _, c := range creations {
		compare(c, decode(t, validatetest.Pool(c)), nil)
	}
	for _, u := range updates {
		old := decode(t, validatetest.Pool(u[0]))
		if faults := append(v.Create(old), theirs(old, nil)...); len(faults) > 0 {
			t.Fatalf("%s cannot be what is replaced: %v", u[0], faults)
		}
		compare(u[0]+" -> "+u[1], decode(t, validatetest.Pool(u[1])), old)
	}
	for name := range known {
		t.Errorf("%s is in the list of differences, and no case", name)
	}
	t.Logf("%d cases, %d accepted by Sallyport, %d judged otherwise by Calico", count, accepted, differ)
	if count < 600 || accepted < count/5 || accepted > count*4/5 {
		t.Errorf("%d cases, of which %d are right: the table is too small or too one-sided", count, accepted)
	}
}

// TestCalicoPage holds the page of differences against their list: a row for each, in the same words.
func TestCalicoPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/calico.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, d := range validatetest.Differences() {
		calicos, ours := "accepted", "refused"
		if d.Accepted {
			calicos, ours = ours, calicos
		}
		want = append(want, strings.Join([]string{"|", d.What, "|", calicos, "|", ours, "|", d.Why, "|"}, " "))
	}
	var got []string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| what |") {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/calico.md (-want +got):\n%s", diff)
	}
}

// TestCalicoAcceptsOfBGP: what Sallyport's definitions of BGP hold to be right, Calico's do, but for AS numbers that it has no room for.
func TestCalicoAcceptsOfBGP(t *testing.T) {
	t.Parallel()
	for _, table := range []struct {
		kind     string
		cases    []validatetest.Case
		document func(string) string
	}{
		{"bgppeers", validatetest.BGPPeers(), validatetest.BGPPeer},
		{"bgpfilters", validatetest.BGPFilters(), validatetest.BGPFilter},
		{"bgpconfigurations", validatetest.BGPConfigurations(), validatetest.BGPConfiguration},
	} {
		d, err := compile(os.DirFS("testdata"), "calico_"+table.kind+".yaml")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range table.cases {
			if c.Field != "" {
				continue
			}
			for _, f := range d.judge(context.Background(), normalizeObject(decode(t, table.document(c.Text))), nil) {
				if !strings.HasSuffix(f.Message, "must be a whole number from -2147483648 to 2147483647") {
					t.Errorf("%s: %s", c.Text, f)
				}
			}
		}
	}
}

// TestCalicoFields compares the schemas field by field: what Calico's definition can hold, Sallyport's can, so that no
// field of a manifest or of a stored object is lost or refused.
func TestCalicoFields(t *testing.T) {
	t.Parallel()
	schema := func(files fs.FS, name string) apiextensionsv1.JSONSchemaProps {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(data, &crd); err != nil {
			t.Fatal(err)
		}
		return *crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	for kind, want := range map[string][]string{
		// Filled in where pools are read, in both modes alike, so that a stored object stays as it was written.
		"ippools": {".spec.assignmentMode: no default", ".spec.nodeSelector: no default"},
		// What has no meaning without them.
		"bgppeers":          {".spec.password.secretKeyRef: requires name"},
		"bgpconfigurations": {".spec.communities[]: requires name", ".spec.communities[]: requires value", ".spec.nodeMeshPassword.secretKeyRef: requires name", ".spec.prefixAdvertisements[]: requires cidr"},
		"bgpfilters":        nil,
	} {
		theirs, ours := schema(os.DirFS("testdata"), "calico_"+kind+".yaml"), schema(crds.Files(), "projectcalico.org_"+kind+".yaml")
		var lacks []string
		holds("", &theirs, &ours, &lacks)
		if kind != "ippools" { // these have bounds of what BGP has on the wire, and rules in the place of formats
			lacks = slices.DeleteFunc(lacks, func(l string) bool {
				return strings.Contains(l, ": a narrower ") || strings.HasSuffix(l, ": another form") || strings.HasSuffix(l, ": no default")
			})
		}
		if diff := cmp.Diff(want, lacks, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("what Sallyport's definition of %s lacks (-want +got):\n%s", kind, diff)
		}
	}
}

// holds finds in what a schema is narrower than another.
func holds(path string, theirs, ours *apiextensionsv1.JSONSchemaProps, lacks *[]string) {
	lack := func(format string, args ...any) {
		*lacks = append(*lacks, strings.TrimSuffix(path, ".")+": "+fmt.Sprintf(format, args...))
	}
	narrower := func(theirs, ours *int64, sign int64) bool {
		return ours != nil && (theirs == nil || sign**ours < sign**theirs)
	}
	if theirs.Type != ours.Type {
		lack("type %s, not %s", ours.Type, theirs.Type)
	}
	if narrower(theirs.MaxLength, ours.MaxLength, 1) || narrower(theirs.MaxItems, ours.MaxItems, 1) ||
		narrower(theirs.MinLength, ours.MinLength, -1) || narrower(theirs.MinItems, ours.MinItems, -1) {
		lack("a narrower bound")
	}
	if ours.Maximum != nil && (theirs.Maximum == nil || *ours.Maximum < *theirs.Maximum) || ours.Minimum != nil && (theirs.Minimum == nil || *ours.Minimum > *theirs.Minimum) {
		lack("a narrower range")
	}
	if ours.Pattern != theirs.Pattern || ours.Format != theirs.Format && ours.Format != "" {
		lack("another form")
	}
	if theirs.Default != nil && ours.Default == nil {
		lack("no default")
	}
	for _, value := range theirs.Enum {
		if len(ours.Enum) > 0 && !slices.ContainsFunc(ours.Enum, func(v apiextensionsv1.JSON) bool { return string(v.Raw) == string(value.Raw) }) {
			lack("no value %s", value.Raw)
		}
	}
	for _, name := range ours.Required {
		if _, known := theirs.Properties[name]; known && !slices.Contains(theirs.Required, name) {
			lack("requires %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(theirs.Properties)) {
		their := theirs.Properties[name]
		our, ok := ours.Properties[name]
		if !ok {
			lack("no field %s", name)
			continue
		}
		holds(path+"."+name, &their, &our, lacks)
	}
	if theirs.Items != nil && ours.Items != nil {
		holds(path+"[]", theirs.Items.Schema, ours.Items.Schema, lacks)
	}
}
