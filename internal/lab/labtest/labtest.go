// Package labtest runs tests inside a lab: see Main.
package labtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
)

// missingEnv tells the tests which kernel feature is missing.
const missingEnv = "SALLYPORT_LAB_MISSING"

// Main is the TestMain of a package whose tests need network namespaces: it runs them in namespaces of
// their own (lab.Isolate). Where the kernel does not allow it, the tests run all the same, and those
// that call Need or NewHost are skipped, each saying which feature is missing.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run is Main for a TestMain that has something to do before or after: it returns the exit status. It
// is called twice, outside the namespaces and, in another process, inside (lab.Isolated).
func Run(m *testing.M) int {
	if fuzzing(os.Args[1:]) {
		return m.Run()
	}
	inside, status, err := lab.Isolate(context.Background())
	var missing *lab.FeatureError
	switch {
	case errors.As(err, &missing):
		if err := os.Setenv(missingEnv, missing.Error()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Fprintln(os.Stderr, "SKIP:", missing)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	case !inside:
		return status
	}
	return m.Run()
}

// fuzzing says whether the arguments ask for fuzzing, which needs no lab: its workers talk through file
// descriptors that a program started in namespaces would not have.
func fuzzing(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool {
		return strings.HasPrefix(strings.TrimLeft(a, "-"), "test.fuzz=") || strings.HasPrefix(strings.TrimLeft(a, "-"), "test.fuzzworker")
	})
}

// Need skips a test, with the reason, where there is no lab.
func Need(t TB) {
	t.Helper()
	if missing := os.Getenv(missingEnv); missing != "" {
		t.Skip("kernel feature missing: " + missing)
	}
	if !lab.Isolated() {
		t.Fatal("the package's TestMain must call labtest.Main or labtest.Run")
	}
}

// NewHost makes a host that is closed when the test ends.
func NewHost(t TB, name string) *lab.Host {
	t.Helper()
	Need(t)
	h, err := lab.NewHost(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("closing host %s: %v", name, err)
		}
	})
	return h
}

// Must ends the test where one of the steps that built its lab has failed.
func Must(t TB, steps ...error) {
	t.Helper()
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
}
