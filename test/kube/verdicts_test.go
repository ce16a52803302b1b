package kube

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/api/crds"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
	"github.com/sallyport/sallyport/internal/validate/validatetest"
	"github.com/sallyport/sallyport/internal/yaml"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestVerdicts holds an API server against the table by which package validate is tested: it must accept and refuse
// the same, and blame the same fields.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{})
	c.InstallCRDs(t)
	s := newServer(t, c)
	creations(t, s, poolsPath, validatetest.Pools(), validatetest.Pool)
	creations(t, s, configurationsPath, validatetest.Configurations(), validatetest.Configuration)
	creations(t, s, reservationsPath, validatetest.Reservations(), validatetest.Reservation)
	creations(t, s, networkConfigurationsPath, validatetest.NetworkConfigurations(), validatetest.NetworkConfiguration)
	creations(t, s, blocksPath, validatetest.Blocks(), validatetest.Block)
	creations(t, s, peersPath, validatetest.BGPPeers(), validatetest.BGPPeer)
	creations(t, s, filtersPath, validatetest.BGPFilters(), validatetest.BGPFilter)
	creations(t, s, bgpConfigurationsPath, validatetest.BGPConfigurations(), validatetest.BGPConfiguration)
	blockUpdates(t, s)
	creations(t, s, poolsPath, validatetest.Metadata(), func(metadata string) string {
		return "{apiVersion: projectcalico.org/v3, kind: IPPool, spec: {cidr: 10.0.0.0/16}, metadata: " + metadata + "}"
	})
	creations(t, s, configurationsPath, validatetest.Metadata(), func(metadata string) string {
		return "{apiVersion: sallyport.dev/v1alpha1, kind: NATConfiguration, spec: {}, metadata: " + metadata + "}"
	})
	calico(t, s)
	updates(t, s)
}

// calico holds an API server against the table that package validate compares with Calico's definition, which it judges
// in-process: once with Sallyport's definition, once with Calico's, which stays.
func calico(t *testing.T, s *server) {
	t.Helper()
	v := validate.New()
	differs := map[string]bool{}
	for _, d := range validatetest.Differences() {
		for _, c := range d.Cases {
			differs[c] = true
		}
	}
	data, err := os.ReadFile("../../internal/validate/testdata/calico_ippools.yaml")
	labtest.Must(t, err)
	var theirs map[string]any
	labtest.Must(t, yaml.Unmarshal(data, &theirs))
	creations, _ := validatetest.Calico()
	compare := func(who string, accepts func(spec string, faults []model.Fault) bool) {
		for _, spec := range creations {
			var obj map[string]any
			labtest.Must(t, yaml.Unmarshal([]byte(validatetest.Pool(spec)), &obj))
			fields, message := s.judge(http.MethodPost, poolsPath, validatetest.Pool(spec))
			if faults := v.Create(obj); (len(fields) == 0) != accepts(spec, faults) {
				t.Errorf("%.200s: with %s definition the server says %q %.200s, package validate %v", spec, who, fields, message, faults)
			}
		}
	}
	compare("Sallyport's", func(_ string, faults []model.Fault) bool {
		// Selectors are what no server can read.
		return !slices.ContainsFunc(faults, func(f model.Fault) bool { return !strings.HasPrefix(f.Message, "is not a selector: ") })
	})
	loose := definition(t, "projectcalico.org_ippools.yaml")
	withoutRules(loose)
	s.redefine(loose, false) // so that the server is seen to go by the next one
	s.redefine(theirs, true)
	compare("Calico's", func(spec string, faults []model.Fault) bool { return (len(faults) == 0) != differs[spec] })
}

// wanted is the field that an API server is to blame.
func wanted(field string, differs validatetest.Server) string {
	switch {
	case differs.Accepts:
		return ""
	case differs.Refuses || differs.Field != "":
		return differs.Field
	}
	return field
}

func creations(t *testing.T, s *server, path string, cases []validatetest.Case, document func(string) string) {
	t.Helper()
	for _, test := range cases {
		fields, message := s.judge(http.MethodPost, path, document(test.Text))
		expect(t, document(test.Text), fields, message, wanted(test.Field, test.Server))
	}
}

// updates replaces pools. Some of the old ones could not be created any more: they are stored while the definition
// has no rules, as a server did that had another definition.
func updates(t *testing.T, s *server) {
	t.Helper()
	named := func(i int, spec, version string) string {
		name := fmt.Sprintf("metadata: {name: p%d, resourceVersion: '%s'}", i, version)
		return strings.Replace(validatetest.Pool(spec), "metadata: {name: p}", name, 1)
	}
	strict := definition(t, "projectcalico.org_ippools.yaml")
	loose := definition(t, "projectcalico.org_ippools.yaml")
	withoutRules(loose)
	s.redefine(loose, false)
	cases := validatetest.PoolUpdates()
	versions := make([]string, len(cases))
	for i, test := range cases {
		code, stored := s.send(http.MethodPost, poolsPath, named(i, test.Old, ""))
		if code != http.StatusCreated {
			t.Fatalf("storing %s: %v", test.Old, stored)
		}
		versions[i] = stored["metadata"].(map[string]any)["resourceVersion"].(string)
	}
	s.redefine(strict, true)
	for i, test := range cases {
		// Whatever is stored, its status can be written.
		const status = ", status: {conditions: [{type: Allocatable, status: 'True', reason: OK, message: '', lastTransitionTime: '2026-01-02T03:04:05Z'}]}}"
		withStatus := strings.TrimSuffix(named(i, test.Old, versions[i]), "}") + status
		fields, message := s.judge(http.MethodPut, fmt.Sprintf("%s/p%d/status", poolsPath, i), withStatus)
		expect(t, "the status of "+test.Old, fields, message, "")
	}
	for i, test := range cases {
		fields, message := s.judge(http.MethodPut, fmt.Sprintf("%s/p%d", poolsPath, i), named(i, test.New, versions[i]))
		expect(t, test.Old+" replaced by\n"+test.New, fields, message, wanted(test.Field, test.Server))
	}
}

// blockUpdates replaces blocks.
func blockUpdates(t *testing.T, s *server) {
	t.Helper()
	for _, test := range validatetest.BlockUpdates() {
		name, _, _ := strings.Cut(test.Old, " ")
		path := blocksPath + "/" + name
		code, stored := s.send(http.MethodPost, blocksPath, validatetest.Block(test.Old))
		if code != http.StatusCreated {
			t.Fatalf("storing %s: %v", test.Old, stored)
		}
		version := stored["metadata"].(map[string]any)["resourceVersion"].(string)
		fields, message := s.judge(http.MethodPut, path, strings.Replace(validatetest.Block(test.New), "{name: ", "{resourceVersion: '"+version+"', name: ", 1))
		expect(t, test.Old+" replaced by\n"+test.New, fields, message, test.Field)
		if code, answer := s.send(http.MethodDelete, path, ""); code != http.StatusOK {
			t.Fatalf("deleting %s: %v", name, answer)
		}
	}
}

// definition reads one of the embedded CustomResourceDefinitions.
func definition(t *testing.T, name string) map[string]any {
	t.Helper()
	data, err := crds.Files().ReadFile(name)
	labtest.Must(t, err)
	var crd map[string]any
	labtest.Must(t, yaml.Unmarshal(data, &crd))
	return crd
}

// withoutRules takes the CEL rules out of a schema, or of anything that holds one.
func withoutRules(value any) {
	switch v := value.(type) {
	case map[string]any:
		delete(v, "x-kubernetes-validations")
		for inner := range maps.Values(v) {
			withoutRules(inner)
		}
	case []any:
		for _, inner := range v {
			withoutRules(inner)
		}
	}
}

// redefine replaces the definition of pools, and waits until the server goes by it: by one with rules or without.
func (s *server) redefine(crd map[string]any, rules bool) {
	s.t.Helper()
	path := definitionsPath + "/ippools.projectcalico.org"
	code, stored := s.send(http.MethodGet, path, "")
	if code != http.StatusOK {
		s.t.Fatalf("reading the definition: %v", stored)
	}
	crd["metadata"].(map[string]any)["resourceVersion"] = stored["metadata"].(map[string]any)["resourceVersion"]
	data, err := yaml.Encode(crd)
	labtest.Must(s.t, err)
	if code, answer := s.send(http.MethodPut, path, string(data)); code != http.StatusOK {
		s.t.Fatalf("replacing the definition: %v", answer)
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		code, _ := s.send(http.MethodPost, poolsPath+"?dryRun=All", validatetest.Pool("{cidr: 10.0.0.1/16}"))
		if (code == http.StatusUnprocessableEntity) == rules {
			return
		}
		if time.Since(start) > 20*time.Second {
			s.t.Fatalf("the server does not go by the definition: status %d", code)
		}
	}
}
