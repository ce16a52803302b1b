// Package e2e holds what this node's kernel does with real packets against what the plan says.
//
// Nothing here looks at rules: packets go in on one side of a node and are captured on the other.
// Random tests print their seed; SALLYPORT_E2E_SEED repeats one.
package e2e

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// newRand is a source of randomness whose seed is in the test's log.
func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SALLYPORT_E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SALLYPORT_E2E_SEED: %v", err)
		}
	}
	t.Logf("SALLYPORT_E2E_SEED=%d repeats this", seed)
	return rand.New(rand.NewPCG(seed, 0))
}
