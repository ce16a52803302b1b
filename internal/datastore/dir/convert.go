package dir

import (
	"fmt"

	"github.com/sallyport/sallyport/internal/datastore"
)

// object is an Object with what the rest of the system sees of it: see datastore.Value.
type object struct {
	Object
	value any
}

// convert makes the value of an object.
func convert(o Object) (*object, error) {
	value, err := datastore.Value(o.Kind, o.JSON)
	if err != nil {
		return nil, fmt.Errorf("converting %s: %w", o.Key, err)
	}
	return &object{Object: o, value: value}, nil
}
