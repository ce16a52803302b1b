package dir

import (
	"encoding/json"
	"fmt"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
)

// object is an Object with what the rest of the system sees of it: a model.Pool,
// model.NATConfiguration or model.Node.
type object struct {
	Object
	value any
}

// convert makes the value of an object.
func convert(o Object) (*object, error) {
	out := &object{Object: o}
	var err error
	switch o.Kind {
	case KindIPPool:
		var in apiv3.IPPool
		if err = json.Unmarshal(o.JSON, &in); err == nil {
			out.value, err = datastore.Pool(&in)
		}
	case KindNATConfiguration:
		var in v1alpha1.NATConfiguration
		if err = json.Unmarshal(o.JSON, &in); err == nil {
			out.value, err = datastore.NATConfiguration(&in)
		}
	case KindNode:
		out.value, err = datastore.Node(o.JSON)
	default:
		err = fmt.Errorf("the kind %s is not known", o.Kind)
	}
	if err != nil {
		return nil, fmt.Errorf("converting %s: %w", o.Key, err)
	}
	return out, nil
}
