package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestDemo runs the demo, which holds each connection against what the agent says, and compares what it prints with the README.
func TestDemo(t *testing.T) {
	t.Parallel()
	labtest.Need(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "demo")
	cmd.Env = append(os.Environ(), programEnv+"=1")
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the demo fails: %v\n%s%s", err, out, &failed)
	}
	readme, err := os.ReadFile("../../README.md")
	labtest.Must(t, err)
	took := regexp.MustCompile(`(?m)^[0-9.]+ ms from .* \(the \d+\w\w that was made\)\.$`)
	said := took.ReplaceAllString(string(out), "TOOK")
	if !strings.Contains(said, "\nTOOK\n") {
		t.Error("the demo does not say how long the change took")
	}
	if !strings.Contains(took.ReplaceAllString(string(readme), "TOOK"), "```text\n"+said+"```\n") {
		t.Errorf("README.md does not have what the demo prints:\n%s", out)
	}
}
