package datastore

import (
	"reflect"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
)

// FuzzValue makes sure that whatever stands where an object should be gives a value or an error, and twice the same.
func FuzzValue(f *testing.F) {
	for kind, texts := range map[string][]string{
		KindIPPool: {`{"metadata":{"name":"p","creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"cidr":"10.0.0.0/16","allowedUses":["Workload"]},"status":{"conditions":[{"type":"Allocatable","status":"True"}]}}`,
			`{"metadata":null,"spec":[],"status":{"conditions":{}}}`},
		KindNATConfiguration: {`{"metadata":{"name":"c"},"spec":{"addresses":["192.0.2.1"],"portRange":"1-2","nodeSelector":"all()"}}`},
		KindNode:             {`{"metadata":{"name":"n","labels":{"a":"b"}},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.1"}]}}`},
	} {
		for _, text := range texts {
			f.Add(kind, []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, kind string, text []byte) {
		v, err := Value(kind, text)
		if (v == nil) == (err == nil) {
			t.Fatalf("value %v, error %v", v, err)
		}
		if p, ok := v.(*model.Pool); ok && (!p.CIDR.IsValid() || p.CIDR != p.CIDR.Masked() || p.CIDR.Addr().Is4In6()) {
			t.Fatalf("the range of %+v", p)
		}
		if again, _ := Value(kind, text); !reflect.DeepEqual(v, again) {
			t.Fatalf("%+v, and then %+v", v, again)
		}
	})
}
