package validate

import (
	"testing"

	"github.com/sallyport/sallyport/internal/validate/validatetest"
)

func TestCreateConfiguration(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, test := range validatetest.Configurations() {
		run(t, validatetest.Configuration(test.Text), v.Create, test.Field, test.Message)
	}
}
