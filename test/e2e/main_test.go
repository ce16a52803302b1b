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

	"github.com/sallyport/sallyport/internal/cli"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// programEnv makes this test binary be the program itself, so that the agent under test is built as the
// tests are: with the race detector, where they are run with it.
const programEnv = "SALLYPORT_E2E_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		os.Exit(cli.Main())
	}
	labtest.Main(m)
}

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
