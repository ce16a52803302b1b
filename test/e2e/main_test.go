// Package e2e holds what this node's kernel does with real packets against what the plan says.
//
// Nothing here looks at rules: packets go in on one side of a node and are captured on the other.
// Random tests print their seed; SALLYPORT_E2E_SEED repeats one.
package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/cli"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// programEnv makes this test binary be the program itself, so that the agent under test is built as the
// tests are: with the race detector, where they are run with it.
const programEnv = "SALLYPORT_E2E_PROGRAM"

// withoutEnv makes the program begin without some capabilities, whose numbers it lists.
const withoutEnv = "SALLYPORT_E2E_WITHOUT"

func TestMain(m *testing.M) {
	if list := os.Getenv(withoutEnv); list != "" {
		fmt.Fprintln(os.Stderr, dropAndExec(strings.Fields(list)))
		os.Exit(1)
	}
	if os.Getenv(programEnv) != "" {
		os.Exit(cli.Main())
	}
	labtest.Main(m)
}

// dropAndExec begins this program again without capabilities, and returns only if it cannot.
func dropAndExec(capabilities []string) error {
	runtime.LockOSThread() // a thread has capabilities, and passes them on
	for _, s := range capabilities {
		c, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // unknown to this kernel
			return err
		}
	}
	if err := os.Unsetenv(withoutEnv); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
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
