package convert

import (
	"os"
	"path/filepath"
	"testing"

	manifests "github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/validate"
)

// seeds are the inputs in testdata whose names begin so.
func seeds(f *testing.F, prefix string) {
	f.Helper()
	files, err := filepath.Glob("testdata/" + prefix + "*.in.yaml")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
}

// holds checks what a conversion promises of any input: faults and nothing else, or manifests that are valid.
func holds(t *testing.T, v *validate.Validator, r *Result, faults int) {
	t.Helper()
	if (r == nil) != (faults > 0) {
		t.Fatalf("a result: %t, and %d faults", r != nil, faults)
	}
	if r == nil {
		return
	}
	for _, m := range r.Manifests { // the pools of Calico are checked by who prints them
		if m.Source != nil && len(v.Create(m.Object)) > 0 {
			return
		}
	}
	valid(t, v, r)
}

// FuzzIPMasqAgent converts any text, plain and as what a ConfigMap holds.
func FuzzIPMasqAgent(f *testing.F) {
	seeds(f, "masq")
	f.Add([]byte("nonMasqueradeCIDRs: ['::/0', 0.0.0.0/0]\nsnatTarget: 192.0.2.1\n"))
	v := validate.New()
	flags := MasqFlags{PodCIDRs: []string{"10.244.0.0/16"}, EnableIPv6: true}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, _ := manifests.Documents("a", data)
		r, faults := IPMasqAgent(own(docs), flags)
		holds(t, v, r, len(faults))
		r, faults = IPMasqAgent([]Document{{Value: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"config": string(data)}}}}, flags)
		holds(t, v, r, len(faults))
	})
}

// FuzzCalico converts any text.
func FuzzCalico(f *testing.F) {
	seeds(f, "calico")
	f.Add([]byte(felix("node.a", "{natPortRange: 4788, iptablesNATOutgoingInterfaceFilter: eth+, natOutgoingAddress: 192.0.2.1}")))
	v := validate.New()
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, _ := manifests.Documents("a", data)
		r, faults := Calico(own(docs))
		holds(t, v, r, len(faults))
	})
}

// FuzzPorts reads ranges of ports: what is read is one that a NATConfiguration takes.
func FuzzPorts(f *testing.F) {
	for _, s := range []string{"1-2", "4789", "65535", "0-1", "2-1", "-", "+1-2"} {
		f.Add(s)
	}
	v := validate.New()
	f.Fuzz(func(t *testing.T, s string) {
		p, wrong := parsePorts(s, "-")
		if wrong != "" {
			return
		}
		if faults := v.Create(configuration("a", "", map[string]any{"portRange": p.String()}).Object); len(faults) > 0 {
			t.Errorf("%q: %v", s, faults)
		}
	})
}
