package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestAnotherDirectoryChangesNothing puts a directory with one of two manifests in the place of the agent's, as a mount does
// that is late or hides it: packets, commands and a restart, until the missing one is confirmed to go.
func TestAnotherDirectoryChangesNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const other = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: other}\nspec: {cidr: 192.168.77.0/24}\n"
	s.write("pods.yaml", poolsOfPod(true))
	s.write("other.yaml", other)
	s.start()
	s.expect("at first", pathNode)
	labtest.Must(t, os.Rename(s.dir, s.dir+".hidden"), os.Mkdir(s.dir, 0o755), os.WriteFile(filepath.Join(s.dir, "other.yaml"), []byte(other), 0o644))
	lacks := func(when string, args ...string) {
		t.Helper()
		if out, err := s.sallyport(args...); err == nil || !strings.Contains(out, `lacks 2 of the 3 resources in force (IPPool "pods-v4", IPPool "pods-v6")`) {
			t.Errorf("%s, %v: %v\n%s", when, args, err, out)
		}
	}
	file := filepath.Join(t.TempDir(), "new.yaml")
	labtest.Must(t, os.WriteFile(file, []byte(strings.NewReplacer("other", "new", ".77.", ".78.").Replace(other)), 0o644))
	for _, when := range []string{"while it runs", "after a restart"} {
		lacks(when, "apply", "-f", file)
		lacks(when, "delete", "pool", "other")
		lacks(when, "status", "--wait", "3s")
		lacks(when, "run", "--dry-run", "--node-name", "node", "--state-dir", s.state)
		s.expect(when, pathNode)
		if when == "while it runs" {
			s.end(syscall.SIGTERM)
			lacks("while none runs", "run", "--dry-run", "--node-name", "node", "--state-dir", s.state)
			s.startFaulty()
		}
	}
	if out, err := s.sallyport("delete", "pool", "pods-v4", "pods-v6", "--wait", "10s"); err != nil {
		t.Fatalf("the confirmation: %v\n%s", err, out)
	}
	s.expect("confirmed", pathPod)
	if out, err := s.sallyport("apply", "-f", file, "--wait", "10s"); err != nil {
		t.Errorf("an edit afterwards: %v\n%s", err, out)
	}
}
