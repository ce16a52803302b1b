package validate

import (
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
)

// validateSelectors checks what CEL cannot: that every selector can be read. A selector that is not text, is too long
// or uses global(), which means something to policies only, is the schema's to refuse.
func validateSelectors(obj map[string]any) []model.Fault {
	spec, _ := obj["spec"].(map[string]any)
	var faults []model.Fault
	for _, name := range []string{"nodeSelector", "namespaceSelector"} {
		text, ok := spec[name].(string)
		if !ok || utf8.RuneCountInString(text) > selector.MaxLength {
			continue
		}
		if _, err := selector.Parse(text); err != nil {
			faults = append(faults, model.Fault{Field: "spec." + name, Message: "is not a selector: " + err.Error()})
		}
	}
	return faults
}
