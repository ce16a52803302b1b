package validate

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
)

// validateMetadata checks the metadata of an object without a namespace, as an API server does. What a
// server fills in itself (uid, managedFields and so on) is accepted, so that the output of kubectl is.
func validateMetadata(obj map[string]any, kind any) []model.Fault {
	value, ok := obj["metadata"]
	if !ok {
		return []model.Fault{{Field: "metadata.name", Message: "is missing; every object needs a name"}}
	}
	values, ok := value.(map[string]any)
	if !ok {
		return []model.Fault{{Field: "metadata", Message: "must be a mapping of fields to values"}}
	}
	meta, faults := decodeMetadata(values)
	if meta == nil {
		return faults
	}
	if meta.Name == "" {
		faults = append(faults, model.Fault{Field: "metadata.name", Message: "is missing; every object needs a name"})
		meta.Name = "unnamed" // that it is missing is said
	}
	if meta.Namespace != "" {
		faults = append(faults, model.Fault{Field: "metadata.namespace", Message: fmt.Sprintf("must be removed; a %v belongs to no namespace", kind)})
		meta.Namespace = ""
	}
	path := field.NewPath("metadata")
	blamed := map[string]bool{}
	for _, err := range apivalidation.ValidateObjectMeta(meta, false, apivalidation.NameIsDNSSubdomain, path) {
		// One name or value may break several rules; the first is enough.
		key := err.Field + "\x00" + fmt.Sprint(err.BadValue)
		if !blamed[key] {
			blamed[key] = true
			faults = append(faults, model.Fault{Field: err.Field, Message: metadataMessage(err)})
		}
	}
	return faults
}

// metadataMessage puts an error of apimachinery into plain words.
func metadataMessage(err *field.Error) string {
	if err.Field == "metadata.name" && err.Type == field.ErrorTypeInvalid {
		return quoteValue(err.BadValue) + `is not a name; use at most 253 lower case letters, digits, "-" and ".", with a letter or digit at both ends and beside each "."`
	}
	detail, _, _ := strings.Cut(err.Detail, " (e.g. ") // what follows is a regular expression
	if err.Type == field.ErrorTypeInvalid || err.Type == field.ErrorTypeNotSupported {
		return quoteValue(err.BadValue) + "is not valid: " + detail
	}
	return detail
}

// decodeMetadata reads metadata, and says what in it has the wrong type or is unknown. It returns nil where
// nothing more can be checked.
func decodeMetadata(values map[string]any) (*metav1.ObjectMeta, []model.Fault) {
	if meta := decodeUsual(values); meta != nil {
		return meta, nil
	}
	if faults := metadataTypes(values); len(faults) > 0 {
		return nil, faults
	}
	meta, _, unknown, err := objectmeta.GetObjectMetaWithOptions(map[string]any{"metadata": values}, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return nil, []model.Fault{{Field: "metadata." + wrong.Field, Message: "cannot be " + typeName(wrong.Value)}}
	case err != nil:
		return nil, []model.Fault{{Field: "metadata", Message: "cannot be read: " + err.Error()}}
	}
	var faults []model.Fault
	slices.Sort(unknown)
	for _, path := range unknown {
		message := "is no field that exists; remove it, or put it under labels or annotations"
		if near := closest(strings.TrimPrefix(path, "metadata."), []string{"annotations", "labels", "name"}); near != "" {
			message = "is no field that exists; did you mean " + near + "?"
		}
		faults = append(faults, model.Fault{Field: text.Clip(path, quoted), Message: message})
	}
	meta.ManagedFields = nil // the server's own, and never ours to judge
	return meta, faults
}

// decodeUsual reads metadata that has nothing but a name, labels and annotations, as nearly all has that
// people write, without a detour over JSON. It returns nil where there is more.
func decodeUsual(values map[string]any) *metav1.ObjectMeta {
	meta := &metav1.ObjectMeta{}
	for key, value := range values {
		ok := false
		switch key {
		case "name":
			meta.Name, ok = value.(string)
		case "labels":
			meta.Labels, ok = stringMap(value)
		case "annotations":
			meta.Annotations, ok = stringMap(value)
		}
		if !ok {
			return nil
		}
	}
	return meta
}

func stringMap(value any) (map[string]string, bool) {
	values, ok := value.(map[string]any)
	if !ok {
		return nil, false
	}
	out := make(map[string]string, len(values))
	for key, value := range values {
		if out[key], ok = value.(string); !ok {
			return nil, false
		}
	}
	return out, true
}

// metadataTypes finds what has the wrong type among the fields that people write.
func metadataTypes(values map[string]any) []model.Fault {
	var faults []model.Fault
	for _, key := range []string{"name", "generateName", "namespace"} {
		if value, ok := values[key]; ok {
			if _, ok := value.(string); !ok {
				faults = append(faults, model.Fault{Field: "metadata." + key, Message: "must be text; put it in quotes"})
			}
		}
	}
	for _, key := range []string{"labels", "annotations"} {
		value, ok := values[key]
		if !ok {
			continue
		}
		entries, ok := value.(map[string]any)
		if !ok {
			faults = append(faults, model.Fault{Field: "metadata." + key, Message: "must be a mapping of names to texts"})
		}
		for name, entry := range entries {
			if _, ok := entry.(string); !ok {
				faults = append(faults, model.Fault{Field: "metadata." + key, Message: fmt.Sprintf("the value of %q must be text; put it in quotes", text.Clip(name, quoted))})
			}
		}
	}
	return faults
}
