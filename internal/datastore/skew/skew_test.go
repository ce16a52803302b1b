package skew

import (
	"errors"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		theirs, mine string
		far          bool
	}{
		{"0.2.0", "0.2.7", false},
		{"v0.2.0", "0.3.0-rc.1", false},
		{"0.4.1", "v0.3.0", false},
		{"0.5.0", "0.3.9", true},
		{"0.3.9", "0.5.0", true},
		{"1.0.0", "0.9.0", true},
		{"1.2.0", "2.2.0", true},
		{"", "0.2.0", false},
		{"7c3f1a2-dirty", "0.2.0", false},
		{"0.2.0", "(devel)", false},
	} {
		err := Check("the state", test.theirs, test.mine)
		var far *Error
		if errors.As(err, &far) != test.far {
			t.Errorf("%q and %q: %v", test.theirs, test.mine, err)
		}
	}
}
