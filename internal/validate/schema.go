package validate

import (
	"context"
	"errors"

	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
	"github.com/sallyport/sallyport/internal/yaml"
)

// definition is one version of a CustomResourceDefinition, ready to check objects. It is immutable.
type definition struct {
	structural *structuralschema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

// compile reads one CustomResourceDefinition, which has one version.
func compile(files fs.FS, name string) (*definition, error) {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return nil, fmt.Errorf("reading the embedded %s: %w", name, err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(data, &crd); err != nil {
		return nil, fmt.Errorf("decoding the embedded %s: %w", name, err)
	}
	if len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Schema == nil {
		return nil, fmt.Errorf("the embedded %s has %d versions; want one, with a schema", name, len(crd.Spec.Versions))
	}
	var props apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, &props, nil); err != nil {
		return nil, fmt.Errorf("converting the schema of the embedded %s: %w", name, err)
	}
	// Status belongs to the system. An API server ignores what a manifest says there, and so does validate;
	// without its schema there is less to keep in memory.
	delete(props.Properties, "status")
	dropDescriptions(&props)
	structural, err := structuralschema.NewStructural(&props)
	if err != nil {
		return nil, fmt.Errorf("reading the schema of the embedded %s: %w", name, err)
	}
	schemaValidator, _, err := validation.NewSchemaValidator(&props)
	if err != nil {
		return nil, fmt.Errorf("compiling the schema of the embedded %s: %w", name, err)
	}
	rules := cel.NewValidator(structural, true, celconfig.PerCallLimit)
	if err := checkRules(rules, nil); err != nil {
		return nil, fmt.Errorf("compiling the rules of the embedded %s: %w", name, err)
	}
	return &definition{structural: structural, schema: schemaValidator, rules: rules}, nil
}

// checkRules says which rule of a schema does not compile. The library tells only when a value meets the rule, so
// each rule is shown an empty one.
func checkRules(v *cel.Validator, path *field.Path) error {
	if v == nil {
		return nil
	}
	empty := map[string]any{"object": map[string]any{}, "array": []any{}, "string": "", "integer": int64(0), "number": 0.0, "boolean": false}[v.Schema.Type]
	found, _ := v.Validate(context.Background(), path, nil, empty, nil, math.MaxInt64)
	for _, err := range found {
		if strings.HasPrefix(err.Detail, "rule compile") {
			return fmt.Errorf("%s: %s", err.Field, err.Detail)
		}
	}
	errs := []error{checkRules(v.Items, path.Key("")), checkRules(v.AdditionalProperties, path.Key(""))}
	for name, property := range v.Properties {
		errs = append(errs, checkRules(&property, path.Child(name)))
	}
	for i := range v.AllOfValidators {
		errs = append(errs, checkRules(v.AllOfValidators[i], path))
	}
	return errors.Join(errs...)
}

// dropDescriptions forgets what only people read.
func dropDescriptions(props *apiextensions.JSONSchemaProps) {
	props.Description = ""
	for name, property := range props.Properties {
		dropDescriptions(&property)
		props.Properties[name] = property
	}
	if props.Items != nil && props.Items.Schema != nil {
		dropDescriptions(props.Items.Schema)
	}
}

// validate returns the faults of an object, which it may change.
func (d *definition) validate(ctx context.Context, obj, old map[string]any) []model.Fault {
	delete(obj, "status")
	delete(old, "status")
	faults := append(validateMetadata(obj, obj["kind"]), d.judge(ctx, obj, old)...)
	for _, fault := range append(validateSelectors(obj), validateCommunities(obj)...) {
		// What a rule refuses as a whole is not also read.
		if !slices.ContainsFunc(faults, func(f model.Fault) bool { return f.Field == fault.Field }) {
			faults = append(faults, fault)
		}
	}
	return faults
}

// mostUnknown bounds the fields of one object that are named since they do not exist: to find what was meant takes time.
const mostUnknown = 100

// judge returns the faults that the schema and its rules find in an object, which it may change: those that an API
// server finds.
func (d *definition) judge(ctx context.Context, obj, old map[string]any) []model.Fault {
	var faults []model.Fault
	unknown := pruning.PruneWithOptions(obj, d.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	errs := validation.ValidateCustomResource(nil, obj, d.schema)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, d.structural, obj)...)
	errs = oneErrorEach(errs)
	if more := len(unknown) - mostUnknown; more > 0 {
		unknown = unknown[:mostUnknown]
		faults = append(faults, model.Fault{Message: fmt.Sprintf("has %d more fields that do not exist", more)})
	}

	for _, path := range unknown {
		if slices.ContainsFunc(errs, func(err *field.Error) bool { return within(path, err.Field) }) {
			continue // it stands in something that should be no mapping at all
		}
		fault, meant := d.unknownField(path)
		faults = append(faults, fault)
		errs = slices.DeleteFunc(errs, func(err *field.Error) bool {
			return err.Type == field.ErrorTypeRequired && err.Field == meant
		})
	}
	if len(unknown) == 0 && !slices.ContainsFunc(errs, blocksRules) {
		var oldValue any
		if old != nil {
			oldValue = old
		}
		more, _ := d.rules.Validate(ctx, nil, d.structural, obj, oldValue, celconfig.RuntimeCELCostBudget)
		errs = append(errs, more...)
	}
	for _, err := range errs {
		faults = append(faults, model.Fault{Field: err.Field, Message: messageOf(err)})
	}
	return faults
}

// blocksRules says whether the CEL rules cannot be asked while an object has this fault, since they rely
// on the schema. The same faults block them in an API server.
func blocksRules(err *field.Error) bool {
	switch err.Type {
	case field.ErrorTypeRequired, field.ErrorTypeNotSupported, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
		return true
	}
	return false
}

// unknownField describes a field that the schema does not have, and returns the path of the field that was
// probably meant, or "".
func (d *definition) unknownField(path string) (fault model.Fault, nearest string) {
	parent, name := "", path
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		parent, name = path[:i+1], path[i+1:]
	}
	names := slices.Sorted(maps.Keys(d.propertiesAt(parent)))
	fault = model.Fault{Field: text.Clip(path, quoted), Message: "is no field that exists; remove it, or use one of " + strings.Join(names, ", ")}
	if near := closest(name, names); near != "" {
		fault.Message = "is no field that exists; did you mean " + near + "?"
		nearest = parent + near
	}
	return fault, nearest
}

// propertiesAt returns the fields of the object at a path that ends in ".", or of the whole resource.
func (d *definition) propertiesAt(parent string) map[string]structuralschema.Structural {
	at := d.structural.Properties
	for name := range strings.SplitSeq(strings.TrimSuffix(parent, "."), ".") {
		name, _, inList := strings.Cut(name, "[")
		switch {
		case inList && at[name].Items != nil:
			at = at[name].Items.Properties
		case name != "":
			at = at[name].Properties
		}
	}
	return at
}
