package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// maxSize bounds the program as users build it, in bytes. Most of it comes with what validates (cel-go, protobuf, apiserver's
// CEL library and the k8s.io/api/core/v1 that this imports) and with client-go; test/arch names what may not come in. The pod network
// has taken 2 MB, and BGP 6.5 MB: gobgp, with the gRPC server that it can be.
const maxSize = 38_500_000

// maxPluginSize is that of the CNI plugin, in bytes, which a runtime starts for each pod, twice.
const maxPluginSize = 3_000_000

// TestSize builds the programs as users do. Its size is memory too: an agent at rest has two thirds of its file resident.
func TestSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "make", "-C", root, "build", "BIN="+dir).CombinedOutput()
	if err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	for name, most := range map[string]int64{"sallyport": maxSize, "sallyport-cni": maxPluginSize} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has %d bytes, of %d", name, info.Size(), most)
		if info.Size() > most {
			t.Errorf("%s has %d bytes, and may have %d: find out what has come in (go list -deps ./cmd/%[1]s; go tool nm -size -sort size, of a program built without -s)", name, info.Size(), most)
		}
	}
}
