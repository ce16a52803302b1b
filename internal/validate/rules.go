package validate

import (
	"fmt"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
	"github.com/sallyport/sallyport/internal/text"
)

// validateSelectors checks what CEL cannot: that every selector can be read. A selector that is not text, is too long
// or uses global(), which means something to policies only, is the schema's to refuse, where it does.
func validateSelectors(obj map[string]any) []model.Fault {
	spec, _ := obj["spec"].(map[string]any)
	var faults []model.Fault
	for _, name := range []string{"nodeSelector", "namespaceSelector", "peerSelector", "localWorkloadSelector"} {
		written, ok := spec[name].(string)
		if !ok || utf8.RuneCountInString(written) > selector.MaxLength {
			continue
		}
		if _, err := selector.Parse(written); err != nil {
			faults = append(faults, model.Fault{Field: "spec." + name, Message: "is not a selector: " + err.Error()})
		}
	}
	return faults
}

// validateCommunities checks what CEL cannot within its limits: that communities have numbers that they can have, and that every name
// in prefixAdvertisements stands for one of spec.communities.
func validateCommunities(obj map[string]any) []model.Fault {
	spec, _ := obj["spec"].(map[string]any)
	named := map[any]bool{}
	var faults []model.Fault
	for i, c := range listOf(spec["communities"]) {
		community, _ := c.(map[string]any)
		named[community["name"]] = true
		written, ok := community["value"].(string)
		if _, right := model.ParseCommunity(written); ok && !right {
			faults = append(faults, model.Fault{Field: fmt.Sprintf("spec.communities[%d].value", i),
				Message: fmt.Sprintf("%q must be aa:nn with two numbers up to 65535, such as 65000:100, or aa:nn:mm with three up to 4294967295", text.Clip(written, quoted))})
		}
	}
	for i, a := range listOf(spec["prefixAdvertisements"]) {
		advertisement, _ := a.(map[string]any)
		for j, c := range listOf(advertisement["communities"]) {
			written, ok := c.(string)
			if !ok || named[written] {
				continue
			}
			if _, ok := model.ParseCommunity(written); !ok {
				faults = append(faults, model.Fault{Field: fmt.Sprintf("spec.prefixAdvertisements[%d].communities[%d]", i, j),
					Message: fmt.Sprintf("%q is neither a community, such as 65000:100, nor the name of one in spec.communities", text.Clip(written, quoted))})
			}
		}
	}
	return faults
}

func listOf(value any) []any {
	list, _ := value.([]any)
	return list
}
