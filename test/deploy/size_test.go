package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxSize bounds the program as users build it, in bytes. Most of it comes with what validates (cel-go, protobuf, apiserver's
// CEL library and the k8s.io/api/core/v1 that this imports) and with client-go; test/arch names what may not come in.
const maxSize = 30_000_000

// TestSize builds the program as users do. Its size is memory too: an agent at rest has two thirds of its file resident.
func TestSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "make", "-C", root, "build", "BIN="+dir).CombinedOutput()
	if err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	info, err := os.Stat(filepath.Join(dir, "sallyport"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the program has %d bytes, of %d", info.Size(), maxSize)
	if info.Size() > maxSize {
		t.Errorf("the program has %d bytes, and may have %d: find out what has come in (go list -deps ./cmd/sallyport; go tool nm -size -sort size, of a program built without -s)", info.Size(), maxSize)
	}
}
