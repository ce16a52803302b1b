package validate

import (
	"context"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apimachinery/pkg/util/version"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/sallyport/sallyport/api/crds"
	"github.com/sallyport/sallyport/internal/yaml"
)

// readCRD reads one of the embedded CustomResourceDefinitions, as an API server would store it.
func readCRD(t *testing.T, name string) *apiextensions.CustomResourceDefinition {
	t.Helper()
	data, err := crds.Files().ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(data, &crd); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&crd)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&crd.Spec)
	crd.Status.StoredVersions = []string{crd.Spec.Versions[0].Name}
	var internal apiextensions.CustomResourceDefinition
	if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&crd, &internal, nil); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return &internal
}

// TestServersAcceptDefinitions runs what an API server asks of a CustomResourceDefinition, among it whether
// the CEL rules compile and whether their estimated cost stays within its limits.
func TestServersAcceptDefinitions(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(crds.Files(), "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 2 {
		t.Fatalf("only %d definitions are embedded", len(names))
	}
	for _, name := range names {
		crd := readCRD(t, name)
		for _, err := range apiextensionsvalidation.ValidateCustomResourceDefinition(context.Background(), crd) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRuleCosts compiles every rule as the oldest API server that is supported compiles one that is new to it, and keeps
// its estimated cost far below the limit, so that a rule may grow without a surprise in somebody's cluster.
func TestRuleCosts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"projectcalico.org_ippools.yaml", "projectcalico.org_ipreservations.yaml", "sallyport.dev_natconfigurations.yaml",
		"sallyport.dev_nodenetworkconfigurations.yaml", "sallyport.dev_ipblocks.yaml",
		"projectcalico.org_bgppeers.yaml", "projectcalico.org_bgpconfigurations.yaml", "projectcalico.org_bgpfilters.yaml"} {
		crd := readCRD(t, name)
		props := crd.Spec.Validation
		if props == nil {
			props = crd.Spec.Versions[0].Schema
		}
		root := props.OpenAPIV3Schema
		context := apiextensionsvalidation.RootCELContext(root)
		checkAllCosts(t, name+": ", context, root)
	}
}

// checkAllCosts does so for a schema and all in it.
func checkAllCosts(t *testing.T, where string, context *apiextensionsvalidation.CELSchemaContext, props *apiextensions.JSONSchemaProps) {
	t.Helper()
	checkCosts(t, where, context, props)
	for field, property := range props.Properties {
		if field != "status" {
			checkAllCosts(t, where+"."+field, context.ChildPropertyContext(&property, field), &property)
		}
	}
	if props.Items != nil {
		checkAllCosts(t, where+"[]", context.ChildItemsContext(props.Items.Schema), props.Items.Schema)
	}
}

func checkCosts(t *testing.T, where string, context *apiextensionsvalidation.CELSchemaContext, props *apiextensions.JSONSchemaProps) {
	t.Helper()
	if len(props.XValidations) == 0 {
		return
	}
	info, err := context.TypeInfo()
	if err != nil || info == nil {
		t.Fatalf("%s: no type: %v", where, err)
	}
	structural, err := structuralschema.NewStructural(props)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	results, err := cel.Compile(structural, info.DeclType, celconfig.PerCallLimit, environment.MustBaseEnvSet(version.MajorMinor(1, 31)), cel.NewExpressionsEnvLoader())
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	for i, result := range results {
		if result.Error != nil {
			t.Errorf("%s, rule %d: %v", where, i, result.Error)
		}
		cost := result.MaxCost * *context.MaxCardinality
		t.Logf("%s, rule %d: cost %d of %d, message %d", where, i, cost, apiextensionsvalidation.StaticEstimatedCostLimit, result.MessageExpressionMaxCost)
		if cost > apiextensionsvalidation.StaticEstimatedCostLimit/20 {
			t.Errorf("%s, rule %d: cost %d of %d", where, i, cost, apiextensionsvalidation.StaticEstimatedCostLimit)
		}
	}
}

// TestRuleThatDoesNotCompile breaks rules of each definition: without a word at the start, every object would be
// blamed for the rule instead.
func TestRuleThatDoesNotCompile(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string][]string{
		"projectcalico.org_ippools.yaml":       {"rule: isCIDR(self)", "rule: '!(''LoadBalancer'' in self)"},
		"sallyport.dev_natconfigurations.yaml": {"rule: isIP(self)", "rule: self != '4789-4789'"},

		"sallyport.dev_ipblocks.yaml":                  {"rule: isCIDR(self)"},
		"sallyport.dev_nodenetworkconfigurations.yaml": {"rule: isCIDR(self)"},

		"projectcalico.org_bgppeers.yaml":          {"rule: self.matches('^[-._a-zA-Z0-9]+$')"},
		"projectcalico.org_bgpconfigurations.yaml": {"rule: isCIDR(self)"},
		"projectcalico.org_bgpfilters.yaml":        {"rule: self.size() == 0 || isCIDR(self)"},
	} {
		data, err := crds.Files().ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range rules {
			broken := strings.Replace(string(data), rule, strings.Replace(rule, "self", "selfie", 1), 1)
			if broken == string(data) {
				t.Fatalf("%s has no %q", name, rule)
			}
			_, err := compile(fstest.MapFS{name: {Data: []byte(broken)}}, name)
			if err == nil || !strings.Contains(err.Error(), "selfie") || !strings.Contains(err.Error(), "spec.") {
				t.Errorf("%s with a broken %q: %v", name, rule, err)
			}
		}
	}
}
