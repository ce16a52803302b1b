package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

// TestEveryKindIsKnownEverywhere: what a new kind needs in each layer, as CONTRIBUTING.md lists it.
func TestEveryKindIsKnownEverywhere(t *testing.T) {
	t.Parallel()
	versions := map[string]string{model.KindIPPool: apiv3.GroupVersion().String(), model.KindNATConfiguration: v1alpha1.GroupVersion().String(), model.KindNode: "v1",
		model.KindIPReservation: apiv3.GroupVersion().String(), model.KindNodeNetworkConfiguration: v1alpha1.GroupVersion().String(), model.KindIPBlock: v1alpha1.GroupVersion().String(),
		model.KindBGPPeer: apiv3.GroupVersion().String(), model.KindBGPConfiguration: apiv3.GroupVersion().String(), model.KindBGPFilter: apiv3.GroupVersion().String()}
	source, err := os.ReadFile("../datastore/kube/source.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range model.Resources() {
		if versions[r.Kind] != r.APIVersions[0] {
			t.Errorf("%s is kept as %s, and the API has it as %s", r.Kind, r.APIVersions[0], versions[r.Kind])
		}
		for _, f := range validate.New().Create(map[string]any{"apiVersion": r.APIVersions[0], "kind": r.Kind, "metadata": map[string]any{"name": "a"}, "spec": map[string]any{}}) {
			if f.Field == "kind" || f.Field == "apiVersion" || f.Field == "" {
				t.Errorf("validate does not know %s: %s", r.Kind, f)
			}
		}
		if _, err := datastore.Value(r.Kind, []byte("{}")); err != nil && strings.Contains(err.Error(), "is not known") {
			t.Errorf("datastore: %v", err)
		}
		found, err := findResource(strings.ToLower(r.Kind))
		if err != nil || found.kind != r.Kind || found.table == nil {
			t.Errorf("get: %+v, %v", found, err)
		}
		if words := fmt.Sprintf("(of(datastore.Kind%s))", r.Kind); !strings.Contains(string(source), words) {
			t.Errorf("a snapshot of the API has no %ss", r.Kind)
		}
		if words := fmt.Sprintf("!changed(datastore.Kind%s)", r.Kind); !strings.Contains(string(source), words) {
			t.Errorf("a snapshot of the API loses its %ss when another kind changes", r.Kind)
		}
	}
}
