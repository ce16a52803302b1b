// Package deploy tests what is in deploy/ with the tools of those who read it.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// program finds a command that hack/install-deps installs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: run hack/install-deps %s", err, name)
	}
	return path
}

// TestSystemdUnit has systemd look at the unit, with a program in the agent's place that is there.
func TestSystemdUnit(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "deploy/systemd/sallyport.service"))
	if err != nil {
		t.Fatal(err)
	}
	const command = "ExecStart=/usr/local/bin/sallyport run\n"
	if !strings.Contains(string(text), command) {
		t.Fatalf("the unit does not say %q, to which make install writes PREFIX", command)
	}
	if !strings.Contains(string(text), "\nMemoryMax=") {
		t.Error("the unit does not bound the agent's memory")
	}
	verify := func(text string) (string, error) {
		unit := filepath.Join(t.TempDir(), "sallyport.service")
		if err := os.WriteFile(unit, []byte(strings.Replace(text, "/usr/local/bin/sallyport", "/bin/true", 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), program(t, "systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", unit).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(string(text)); err != nil || strings.Contains(out, "sallyport") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	if out, _ := verify(strings.Replace(string(text), "WatchdogSec=", "WatchDogSec=", 1)); !strings.Contains(out, "WatchDogSec") {
		t.Errorf("a misspelt key is not noticed: %s", out)
	}
}
