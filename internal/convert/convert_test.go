package convert

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	manifests "github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// documents takes a text apart as the command does.
func documents(t testing.TB, file, text string) []Document {
	t.Helper()
	read, faults := manifests.Documents(file, []byte(text))
	if len(faults) > 0 {
		t.Fatalf("the input of the test: %v", faults)
	}
	return own(read)
}

func own(read []manifests.Document) []Document {
	var docs []Document
	for i := range read {
		docs = append(docs, Document{File: read[i].File, Value: read[i].Value, Line: read[i].Line})
	}
	return docs
}

// valid checks every manifest, and that the text holds these and nothing else.
func valid(t testing.TB, v *validate.Validator, r *Result) []byte {
	t.Helper()
	for _, m := range r.Manifests {
		for _, f := range v.Create(m.Object) {
			t.Errorf("%v: %s", m.Object, f)
		}
	}
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	read, err := manifests.Read([]string{"-"}, strings.NewReader(string(text)), v)
	if err != nil {
		t.Fatal(err)
	}
	if faults := read.Faults(); len(faults) > 0 || len(read.Objects()) != len(r.Manifests) {
		t.Fatalf("%d manifests, of which %d were read, with the faults %v:\n%s", len(r.Manifests), len(read.Objects()), faults, text)
	}
	return text
}

func ptr[T any](v T) *T { return &v }

// masqFlags are the flags with which the files of testdata are converted.
var masqFlags = map[string]MasqFlags{
	"masq-defaults":  {PodCIDRs: []string{"10.244.0.0/16"}},
	"masq-reserved":  {PodCIDRs: []string{"10.244.0.0/16"}, AllReservedRanges: true, ToPorts: "1024-29999,32768-65535", RandomFully: ptr(true)},
	"masq-configmap": {PodCIDRs: []string{"100.64.0.0/16", "fd00:10:244::/56", "100.64.3.0/24"}, EnableIPv6: true},
	"masq-two":       {PodCIDRs: []string{"10.244.0.0/16"}},
	"masq-file":      {PodCIDRs: []string{"10.244.0.0/16"}, RandomFully: ptr(false), ToPorts: "40000"},
}

// TestGolden compares what the files of testdata come to with what is kept there; run it with -update to rewrite
// that.
func TestGolden(t *testing.T) {
	t.Parallel()
	v := validate.New()
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) < 5 {
		t.Fatalf("%d inputs: %v", len(inputs), err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			docs := documents(t, input, string(text))
			var r *Result
			var faults []model.Fault
			if strings.HasPrefix(name, "calico") {
				r, faults = Calico(docs)
			} else {
				flags, ok := masqFlags[name]
				if !ok {
					t.Fatal("no flags are named for this file")
				}
				r, faults = IPMasqAgent(docs, flags)
			}
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			compare(t, "testdata/"+name+".out.yaml", string(valid(t, v, r)))
		})
	}
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestMasqFaults(t *testing.T) {
	t.Parallel()
	pods := MasqFlags{PodCIDRs: []string{"10.244.0.0/16"}}
	with := func(change func(*MasqFlags)) MasqFlags {
		f := MasqFlags{PodCIDRs: []string{"10.244.0.0/16"}}
		change(&f)
		return f
	}
	cm := func(data string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ip-masq-agent, namespace: kube-system}\ndata: " + data + "\n"
	}
	const named = `masq.yaml:4: ConfigMap "kube-system/ip-masq-agent": data`
	for _, tc := range []struct {
		what, text string
		flags      MasqFlags
		want       string
	}{
		{"no pods", "{}", MasqFlags{}, "--pod-cidr: is missing"},
		{"how to find pods", "{}", MasqFlags{}, "kubectl get nodes -o jsonpath="},
		{"pods are no range", "{}", with(func(f *MasqFlags) { f.PodCIDRs = []string{"10.244.0.0"} }), `--pod-cidr: "10.244.0.0" is no range`},
		{"pods with bits set", "{}", with(func(f *MasqFlags) { f.PodCIDRs = []string{"10.244.1.0/16"} }), "write 10.244.0.0/16"},
		{"link-local pods", "{}", with(func(f *MasqFlags) { f.PodCIDRs = []string{"0.0.0.0/0"} }), "overlaps the link-local ranges"},
		{"pods of IPv6", "{}", with(func(f *MasqFlags) { f.PodCIDRs = []string{"fd00::/64"} }), "without --enable-ipv6"},
		{"ports", "{}", with(func(f *MasqFlags) { f.ToPorts = "1-2,70000" }), `--to-ports: "70000" is no range of ports`},
		{"port 0", "{}", with(func(f *MasqFlags) { f.ToPorts = "0-2" }), "write 1-2"},
		{"ports backwards", "{}", with(func(f *MasqFlags) { f.ToPorts = "9-2" }), "write 2-9"},
		{"port of VXLAN", "{}", with(func(f *MasqFlags) { f.ToPorts = "4789" }), "widen the range"},

		{"a list", "[]", pods, "masq.yaml:1: is a list: a configuration"},
		{"no range", "nonMasqueradeCIDRs: [10.0.0.0/8, ten]", pods, `masq.yaml:1: nonMasqueradeCIDRs[1]: "ten" is no range: write one`},
		{"bits set", "nonMasqueradeCIDRs:\n- 10.0.0.1/8", pods, `masq.yaml:2: nonMasqueradeCIDRs[0]: "10.0.0.1/8" has bits set behind the prefix: write 10.0.0.0/8`},
		{"mapped", "nonMasqueradeCIDRs: ['::ffff:10.0.0.0/104']", pods, "write it as IPv4"},
		{"IPv6", "nonMasqueradeCIDRs: ['fd00::/8']", pods, "add that flag"},
		{"no list", "nonMasqueradeCIDRs: 10.0.0.0/8", pods, "must be a list of ranges such as 10.0.0.0/8, not text"},
		{"a number in the list", "nonMasqueradeCIDRs: [10]", pods, "must be text such as 10.0.0.0/8, not a number"},
		{"too many", "cidrLimit: 1\nnonMasqueradeCIDRs: [10.0.0.0/8, 11.0.0.0/8]", pods, "nonMasqueradeCIDRs: has 2 ranges, more than the 1"},
		{"the usual limit", "nonMasqueradeCIDRs: [" + strings.Repeat("10.0.0.0/8, ", 65) + "]", pods, "has 65 ranges, more than the 64"},
		{"limit", "cidrLimit: many", pods, "cidrLimit: must be a whole number, not text"},
		{"link-local", "masqLinkLocal: 1", pods, "masqLinkLocal: must be true or false, not a number"},
		{"interval", "resyncInterval: 60", pods, `resyncInterval: "60" is no duration`},
		{"target", "snatTarget: node", pods, `snatTarget: "node" is no address`},
		{"target of IPv6", "snatTarget: 2001:db8::1", pods, "write an IPv4 address"},
		{"two files", "{}\n---\n{}", pods, "masq.yaml:3: is a second configuration"},
		{"another kind", "kind: DaemonSet\napiVersion: apps/v1\nmetadata: {name: a}", pods, `DaemonSet "a": kind: "DaemonSet" is no ConfigMap`},
		{"no key", cm("{other: ''}"), pods, named + ": has neither the key config nor"},
		{"no data", cm("null"), pods, "data: has neither the key config nor"},
		{"both keys", cm("{config: '', ip-masq-agent: ''}"), pods, named + ": holds both"},
		{"not text", cm("{config: {a: b}}"), pods, named + ".config: must be text, not a mapping"},
		{"not YAML", cm("{config: '['}"), pods, named + ".config: not valid YAML"},
		{"a list in it", cm("{config: '[]'}"), pods, named + ".config: is a list"},
		{"a range in it", cm("{ip-masq.yaml: 'nonMasqueradeCIDRs: [a]'}"), pods, named + "[ip-masq.yaml].nonMasqueradeCIDRs[0]:"},
	} {
		r, faults := IPMasqAgent(documents(t, "masq.yaml", tc.text), tc.flags)
		if r != nil || len(faults) != 1 || !strings.Contains(faults[0].String(), tc.want) {
			t.Errorf("%s: %v; want one fault with %q", tc.what, faults, tc.want)
		}
	}
}

// What differs is said, with the object and the field.
func TestMasqNotes(t *testing.T) {
	t.Parallel()
	v := validate.New()
	flags := MasqFlags{PodCIDRs: []string{"10.244.0.0/16"}, EnableIPv6: true}
	for text, want := range map[string]string{
		"masqLinkLocalIPv6: true":                                       "masqLinkLocalIPv6: true changes nothing, since no node forwards to fe80::/10",
		"nonMasqueradeCIDRs: [169.254.169.254/32]":                      "nonMasqueradeCIDRs[0]: 169.254.169.254/32 is link-local",
		"masqLinkLocal: true\nnonMasqueradeCIDRs: [169.254.169.254/32]": "nonMasqueradeCIDRs[0]: 169.254.169.254/32 is a part of 169.254.0.0/16",
		"nonMasqueradeCIDRs: ['::/0']":                                  "the rest of it is written as 10 pools",
		"nonMasqueradeCIDRs: null":                                      "which the agent takes for an empty list",
		"nonMasqueradeCIDRs: []":                                        "--pod-cidr: 10.244.0.0/16 is not, or not as a whole, in the list",
		"nonMasquerade: []":                                             "nonMasquerade: is no field that ip-masq-agent knows",
		"resyncInterval: 60s":                                           "nonMasqueradeCIDRs: is not set",
		"null":                                                          "nonMasqueradeCIDRs: is not set",
	} {
		r, faults := IPMasqAgent(documents(t, "a", text), flags)
		if len(faults) > 0 {
			t.Errorf("%s: %v", text, faults)
			continue
		}
		if got := string(valid(t, v, r)); !noted(r, want) || !strings.HasPrefix(got, "# Converted from") {
			t.Errorf("%s: %v; want a note with %q", text, r.Notes, want)
		}
	}
}

// TestMasqLinkLocal follows masqLinkLocal into linkLocal, whatever else names link-local addresses.
func TestMasqLinkLocal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                     "Keep",
		"{}":                   "Keep",
		"masqLinkLocal: false": "Keep",
		"masqLinkLocal: null":  "Keep",
		"masqLinkLocal: true":  "Translate",
		"MasqLinkLocal: true":  "Translate",
		"masqLinkLocal: true\nnonMasqueradeCIDRs: [10.0.0.0/8]":       "Translate",
		"masqLinkLocal: true\nnonMasqueradeCIDRs: [169.254.0.0/16]":   "Keep",
		"masqLinkLocal: true\nnonMasqueradeCIDRs: [0.0.0.0/0]":        "Keep",
		"masqLinkLocal: true\nnonMasqueradeCIDRs: [169.254.169.0/24]": "Keep",
		"masqLinkLocal: false\nmasqLinkLocalIPv6: true":               "Keep",
		"masqLinkLocal: true\nmasqLinkLocalIPv6: false":               "Translate",
		"masqLinkLocal: true\nnonMasqueradeCIDRs: ['fe80::/10']":      "Translate",
	} {
		r, faults := IPMasqAgent(documents(t, "a", text), MasqFlags{PodCIDRs: []string{"10.244.0.0/16"}, EnableIPv6: true})
		if len(faults) > 0 {
			t.Fatalf("%s: %v", text, faults)
		}
		spec := r.Manifests[len(r.Manifests)-1].Object["spec"].(map[string]any)
		if spec["linkLocal"] != want {
			t.Errorf("%q: %v, want linkLocal: %s", text, spec, want)
		}
	}
}

func noted(r *Result, want string) bool {
	for _, n := range r.Notes {
		if strings.Contains(n.String(), want) {
			return true
		}
	}
	return false
}

// A name that could end the comment, or the YAML, does neither.
func TestCommentHoldsWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	named := func(name string) Document {
		return Document{File: "a", Value: map[string]any{
			"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": map[string]any{"name": name},
		}}
	}
	r, faults := Calico([]Document{named("default"), named("x\n---\nkind: a\x00\u2028b\xff")})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") || !utf8.ValidString(line) || strings.ContainsAny(line, "\x00\u2028") {
			t.Errorf("%q", line)
		}
	}
}
