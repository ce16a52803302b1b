package validate

import (
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
)

// validateSelectors checks what CEL cannot: that every selector can be read, and uses no global(), which
// means something to policies only. A selector that is not text, or is too long, is the schema's to refuse.
func validateSelectors(obj map[string]any) []model.Fault {
	spec, _ := obj["spec"].(map[string]any)
	var faults []model.Fault
	for _, name := range []string{"nodeSelector", "namespaceSelector"} {
		text, ok := spec[name].(string)
		if !ok || utf8.RuneCountInString(text) > selector.MaxLength {
			continue
		}
		parsed, err := selector.Parse(text)
		switch {
		case err != nil:
			faults = append(faults, model.Fault{Field: "spec." + name, Message: "is not a selector: " + err.Error()})
		case parsed.Global():
			faults = append(faults, model.Fault{Field: "spec." + name, Message: "global() selects nothing here; use all()"})
		}
	}
	return faults
}
