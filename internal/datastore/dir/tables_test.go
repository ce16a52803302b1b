package dir

import (
	"slices"
	"testing"

	"github.com/sallyport/sallyport/internal/datastore"
)

func TestObjectsOfAKind(t *testing.T) {
	t.Parallel()
	var held tables
	for _, k := range []Key{{Kind: datastore.KindIPPool, Name: "a"}, {Kind: datastore.KindIPPool, Name: "b"}, {Kind: datastore.KindIPPool, Name: "c"}, {Kind: datastore.KindNode, Name: "a"}} {
		held.records = append(held.records, &record{object: &object{Object: Object{Key: k}}})
	}
	for _, c := range []struct{ names, want []string }{
		{nil, []string{"a", "b", "c"}},
		{[]string{"c", "none", "a", "c"}, []string{"a", "c"}},
		{[]string{"none"}, nil},
	} {
		var got []string
		for _, o := range held.Objects(datastore.KindIPPool, c.names) {
			if got = append(got, o.Name); o.Kind != datastore.KindIPPool {
				t.Errorf("of the names %q: %s", c.names, o.Key)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("of the names %q: %q, want %q", c.names, got, c.want)
		}
	}
}
