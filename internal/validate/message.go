package validate

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sallyport/sallyport/internal/text"
)

// outOfInt32 is how the schema's validator begins to say that a number does not fit its format. The path
// follows; the error itself has none.
const outOfInt32 = "Checked value must be of type integer with format int32 in "

// oneErrorEach drops all errors but one on each field: what is no value of an enumeration is not also
// blamed for its type, and what has the wrong type not also for its inside.
func oneErrorEach(errs field.ErrorList) field.ErrorList {
	for _, err := range errs {
		if path, ok := strings.CutPrefix(err.Detail, outOfInt32); ok {
			err.Field, err.BadValue = path, field.OmitValueType{}
			err.Detail = fmt.Sprintf("must be a whole number from %d to %d", math.MinInt32, math.MaxInt32)
		}
	}
	slices.SortStableFunc(errs, func(a, b *field.Error) int { return cmp.Compare(severity(a), severity(b)) })
	var kept field.ErrorList
	for _, err := range errs {
		covered := slices.ContainsFunc(kept, func(k *field.Error) bool {
			return err.Field == k.Field || severity(k) < 2 && within(err.Field, k.Field)
		})
		// Metadata is judged apart. What has no path repeats a wrong type.
		if !covered && err.Field != "metadata" && !strings.HasPrefix(err.Detail, "Checked value ") {
			kept = append(kept, err)
		}
	}
	return kept
}

// severity orders the errors on one field; the lowest says most.
func severity(err *field.Error) int {
	switch err.Type {
	case field.ErrorTypeNotSupported:
		return 0
	case field.ErrorTypeTypeInvalid:
		return 1
	}
	return 2
}

// within says whether a path lies inside another.
func within(path, outer string) bool {
	return len(path) > len(outer) && strings.HasPrefix(path, outer) && (path[len(outer)] == '.' || path[len(outer)] == '[')
}

// messageOf puts an error of the schema or its rules into plain words.
func messageOf(err *field.Error) string {
	switch err.Type {
	case field.ErrorTypeRequired:
		return "is missing; it must be set"
	case field.ErrorTypeNotSupported:
		allowed := strings.ReplaceAll(strings.TrimPrefix(err.Detail, "supported values: "), `"`, "")
		return quoteValue(err.BadValue) + "is not one of the values it can have: " + allowed
	case field.ErrorTypeTypeInvalid:
		return typeMessage(err)
	case field.ErrorTypeTooLong:
		return "is too long; it " + strings.Replace(err.Detail, "may not be more than", "may have at most", 1)
	case field.ErrorTypeTooMany:
		return fmt.Sprintf("holds too many entries (%v); it %s", err.BadValue, err.Detail)
	case field.ErrorTypeDuplicate:
		return quoteValue(err.BadValue) + "stands more than once; remove the others"
	case field.ErrorTypeInvalid:
		if strings.Contains(err.Detail, " in body ") { // from the schema, which repeats the path
			_, detail, _ := strings.Cut(err.Detail, " in body ")
			return quoteValue(err.BadValue) + detail
		}
		return quoteValue(err.BadValue) + err.Detail + masked(err)
	}
	return err.Detail
}

// masked adds the range that was probably meant where a CIDR has bits set behind its prefix, which a message in CEL
// cannot say within an API server's limits.
func masked(err *field.Error) string {
	text, _ := err.BadValue.(string)
	prefix, parseErr := netip.ParsePrefix(text)
	if parseErr != nil || prefix == prefix.Masked() {
		return ""
	}
	return "; write " + prefix.Masked().String()
}

// quoteValue renders a short text or number before what is said of it, and anything else as nothing.
func quoteValue(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("%q ", text.Clip(v, quoted))
	case int64, float64, bool:
		return fmt.Sprintf("%v ", v)
	}
	return ""
}

// typeMessage translates "spec.cidr in body must be of type string: "integer"".
func typeMessage(err *field.Error) string {
	_, types, ok := strings.Cut(err.Detail, "must be of type ")
	wanted, found, both := strings.Cut(types, ": ")
	if !ok || !both {
		return err.Detail
	}
	found = typeName(strings.Trim(found, `"`))
	message := "must be " + typeName(wanted) + ", not " + found
	if wanted == "string" && slices.Contains([]string{"a whole number", "a fraction", "true or false"}, found) {
		message += "; put it in quotes"
	}
	return message
}

// typeName says what a type of JSON is to people.
func typeName(jsonType string) string {
	switch jsonType {
	case "string":
		return "text"
	case "integer", "int32":
		return "a whole number"
	case "number", "float64":
		return "a fraction"
	case "boolean":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "a mapping of fields to values"
	case "bool":
		return "true or false"
	case "null":
		return "nothing"
	}
	return jsonType
}
