package validate

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
)

// validateNode checks what is read of a Node (core/v1): its metadata, and the addresses of type InternalIP
// and ExternalIP in its status. All else that kubectl prints of a node is ignored.
func validateNode(_ context.Context, obj, _ map[string]any) []model.Fault {
	faults := append(validateMetadata(obj, "Node"), validateAnnounced(obj)...)
	status, ok := obj["status"]
	if !ok {
		return faults
	}
	fields, ok := status.(map[string]any)
	if !ok {
		return append(faults, model.Fault{Field: "status", Message: "must be a mapping of fields to values"})
	}
	value, ok := fields["addresses"]
	if !ok {
		return faults
	}
	addresses, ok := value.([]any)
	if !ok {
		return append(faults, model.Fault{Field: "status.addresses", Message: "must be a list of entries with type and address"})
	}
	for i, address := range addresses {
		if fault := validateNodeAddress(fmt.Sprintf("status.addresses[%d]", i), address); fault != nil {
			faults = append(faults, *fault)
		}
	}
	return faults
}

// validateAnnounced checks what the agent of a node, and an operator, say of it in annotations.
func validateAnnounced(obj map[string]any) (faults []model.Fault) {
	meta, _ := obj["metadata"].(map[string]any)
	notes, _ := meta["annotations"].(map[string]any)
	for _, key := range []string{"sallyport.dev/network-addresses", "sallyport.dev/tunnel-addresses"} {
		written, _ := notes[key].(string)
		families := map[bool]bool{}
		for part := range strings.SplitSeq(written, ",") {
			a, err := netip.ParseAddr(part)
			if written != "" && (err != nil || a.Zone() != "" || a.Is4In6() || !a.IsGlobalUnicast() || families[a.Is4()]) {
				faults = append(faults, model.Fault{Field: "metadata.annotations", Message: fmt.Sprintf("the value of %s must be at most one address of each family, such as 192.0.2.1,2001:db8::1, not %q", key, text.Clip(written, quoted))})
				break
			}
			families[a.Is4()] = true
		}
	}
	return append(faults, validateBGPNotes(notes)...)
}

// validateBGPNotes checks the annotations by which an operator says a node's AS number, and that it is a route reflector.
func validateBGPNotes(notes map[string]any) (faults []model.Fault) {
	fault := func(key, want, written string) {
		faults = append(faults, model.Fault{Field: "metadata.annotations", Message: fmt.Sprintf("the value of %s must be %s, not %q", key, want, text.Clip(written, quoted))})
	}
	if written, _ := notes[model.AnnotationASNumber].(string); written != "" {
		if _, ok := model.ParseASN(written); !ok {
			fault(model.AnnotationASNumber, "an AS number, 1 to 4294967295", written)
		}
	}
	if written, _ := notes[model.AnnotationClusterID].(string); written != "" {
		if _, ok := model.ParseClusterID(written); !ok {
			fault(model.AnnotationClusterID, "of the form of an IPv4 address, such as 244.0.0.1", written)
		}
	}
	return faults
}

func validateNodeAddress(path string, value any) *model.Fault {
	entry, ok := value.(map[string]any)
	if !ok {
		return &model.Fault{Field: path, Message: "must have the fields type and address"}
	}
	kind, ok := entry["type"].(string)
	if !ok {
		return &model.Fault{Field: path + ".type", Message: "is missing; use InternalIP, ExternalIP or Hostname"}
	}
	if kind != "InternalIP" && kind != "ExternalIP" {
		return nil
	}
	written, ok := entry["address"].(string)
	if !ok {
		return &model.Fault{Field: path + ".address", Message: "is missing; it must be an IP address"}
	}
	address, err := netip.ParseAddr(written)
	if err != nil || address.Zone() != "" {
		return &model.Fault{Field: path + ".address", Message: fmt.Sprintf("%q is not an IP address; write one such as 192.0.2.1 or 2001:db8::1", text.Clip(written, quoted))}
	}
	return nil
}
