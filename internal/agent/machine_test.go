package agent

import (
	"testing"
	"time"
)

// TestMachine: what names a machine, and what does not.
func TestMachine(t *testing.T) {
	t.Parallel()
	cards := []string{"0c:c4:7a:00:00:01", "0c:c4:7a:00:00:02"}
	for _, test := range []struct {
		uuid  string
		cards []string
		want  string
	}{
		{"4c4c4544-0051\n", cards, "4c4c4544-0051 0c:c4:7a:00:00:01 0c:c4:7a:00:00:02"},
		{"4c4c4544-0051\n", nil, ""},
		{"\n", cards, ""},
		{"00000000-0000-0000-0000-000000000000\n", cards, ""},
		{"FFFFFFFF-ffff-FFFF-FFFF-FFFFFFFFFFFF\n", cards, ""},
	} {
		got, err := machineOf(test.uuid, test.cards)
		if got != test.want || (err == nil) != (got != "") {
			t.Errorf("%q with %v is %q, %v", test.uuid, test.cards, got, err)
		}
	}
}

// TestBooted: the time of the boot goes with the clock.
func TestBooted(t *testing.T) {
	t.Parallel()
	if at := booted(); at.IsZero() || !at.Before(time.Now()) {
		t.Errorf("this machine booted at %s", at)
	}
}
