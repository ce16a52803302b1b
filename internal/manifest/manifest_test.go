package manifest

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/validate"
)

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// validator is the real one, compiled once for all tests.
var validator = sync.OnceValue(func() Validator { return validate.New() })

// pool is the manifest of a pool, with more lines of its spec.
func pool(name, cidr string, more ...string) string {
	out := fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: %s\nspec:\n  cidr: %s\n", name, cidr)
	for _, m := range more {
		out += "  " + m + "\n"
	}
	return out
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBlocksAreNotDeclared: agents alone make IPBlocks, in the API of a cluster.
func TestBlocksAreNotDeclared(t *testing.T) {
	t.Parallel()
	p := Check("f", []byte("apiVersion: sallyport.dev/v1alpha1\nkind: IPBlock\nmetadata: {name: 4-10-0-0-0-26}\nspec: {cidr: 10.0.0.0/26, node: n, pool: p, poolUID: u}\n"), nil, validator(), func(Key) *Object { return nil })
	if len(p.Objects) != 0 || len(p.Faults) != 1 || p.Faults[0].Field != "kind" || !strings.Contains(p.Faults[0].Message, "an IPBlock is declared in no manifest") {
		t.Errorf("%+v, %+v", p.Objects, p.Faults)
	}
}
