package validate

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sallyport/sallyport/internal/model"
)

// faultOf puts an error of the schema, the rules or the metadata into plain words.
func faultOf(err *field.Error) model.Fault {
	return model.Fault{Field: err.Field, Message: messageOf(err)}
}

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
		return quoteValue(err.BadValue) + err.Detail
	}
	return err.Detail
}

// quoteValue renders a short text or number before what is said of it, and anything else as nothing.
func quoteValue(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("%q ", clip(v))
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
	message := "must be " + typeName(wanted) + ", not " + typeName(strings.Trim(found, `"`))
	if wanted == "string" {
		message += "; put it in quotes"
	}
	return message
}

// typeName says what a type of JSON is to people.
func typeName(jsonType string) string {
	switch jsonType {
	case "string":
		return "text"
	case "integer":
		return "a whole number"
	case "number":
		return "a number"
	case "boolean":
		return "true or false"
	case "array":
		return "a list"
	case "object":
		return "a mapping of fields to values"
	case "null":
		return "nothing"
	}
	return jsonType
}
