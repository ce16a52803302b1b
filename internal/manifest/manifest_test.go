package manifest

import (
	"fmt"
	"os"
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
