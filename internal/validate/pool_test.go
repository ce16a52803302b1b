package validate

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate/validatetest"
)

// specCase is a spec with the field that is to blame, "" for none, and a part of the message.
type specCase struct{ spec, field, message string }

// asCalicoStores is a document in the form in which Calico stores pools as custom resources of its own.
func asCalicoStores(document string) string {
	return strings.Replace(document, "projectcalico.org/v3", "crd.projectcalico.org/v1", 1)
}

func TestCreatePool(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, test := range validatetest.Pools() {
		document := validatetest.Pool(test.Text)
		run(t, document, v.Create, test.Field, test.Message)
		run(t, asCalicoStores(document), v.Create, test.Field, test.Message)
		// What is wrong at first is wrong later; the old object is of the same family where it can be.
		old := decode(t, document)
		run(t, document, func(obj map[string]any) []model.Fault { return v.Update(obj, old) }, test.Field, test.Message)
	}
}

func TestUpdatePool(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, test := range validatetest.PoolUpdates() {
		for _, before := range []string{validatetest.Pool(test.Old), asCalicoStores(validatetest.Pool(test.Old))} {
			old := decode(t, before)
			t.Run("", func(t *testing.T) {
				run(t, validatetest.Pool(test.New), func(obj map[string]any) []model.Fault { return v.Update(obj, old) }, test.Field, test.Message)
				if t.Failed() {
					t.Logf("the old object is %s", before)
				}
			})
		}
	}
}
