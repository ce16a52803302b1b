package cli

import (
	"maps"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/datastore"
)

// TestProgrammedColumn: what the API says of a pool counts if it is of the pool as it is; a status of another form says
// nothing, and keeps no other pool from being listed.
func TestProgrammedColumn(t *testing.T) {
	t.Parallel()
	var objects []datastore.Object
	for name, status := range map[string]string{
		"held":    `{"conditions":[{"type":"Programmed","status":"True","reason":"Programmed","observedGeneration":2}]}`,
		"pending": `{"conditions":[{"type":"Allocatable"},{"type":"Programmed","status":"False","reason":"Pending","observedGeneration":2}]}`,
		"changed": `{"conditions":[{"type":"Programmed","status":"True","reason":"Programmed","observedGeneration":1}]}`,
		"none":    `null`,
		"foreign": `{"conditions":{}}`,
	} {
		objects = append(objects, datastore.Object{Key: datastore.Key{Kind: datastore.KindIPPool, Name: name},
			JSON: []byte(`{"metadata":{"name":"` + name + `","generation":2},"status":` + status + `}`)})
	}
	if got, want := programmed(objects), map[string]string{"held": "Programmed", "pending": "Pending"}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestLongSelector: a table has the beginning of a selector, and the manifest all of it.
func TestLongSelector(t *testing.T) {
	t.Parallel()
	selector := "a in {'" + strings.Repeat("ä", 1000) + "'}"
	dir := manifests(t, strings.Replace(pools, "cidr: 10.0.0.0/8", "cidr: 10.0.0.0/8\n  nodeSelector: \""+selector+"\"", 1))
	table, _, _ := sallyport(t, dir, "", "get", "pools", "-o", "wide")
	if !strings.Contains(table, "a in {'"+strings.Repeat("ä", 50)+"...  ") {
		t.Errorf("%s", table)
	}
	if manifest, _, _ := sallyport(t, dir, "", "get", "pool", "corporate", "-o", "yaml"); !strings.Contains(manifest, selector) {
		t.Errorf("%s", manifest)
	}
}
