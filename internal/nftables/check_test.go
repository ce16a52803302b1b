package nftables

import (
	"strings"
	"testing"
)

func TestCheckRelease(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{
		"4.18.0-553.el8_10.x86_64": false, "5.4.0-150-generic": false, "5.9": false, "3.10.0": false,
		"5.10.0-8-amd64": true, "5.10": true, "5.11-rc1": true, "6.18.5": true, "10.0": true, "unusual": true, "": true,
	} {
		if err := checkRelease(release); (err == nil) != want {
			t.Errorf("Linux %s: %v", release, err)
		} else if err != nil && !strings.Contains(err.Error(), "5.10 or later") {
			t.Errorf("%q names no version", err)
		}
	}
}
