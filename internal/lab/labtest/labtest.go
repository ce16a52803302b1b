// Package labtest runs tests inside a lab: see Main.
package labtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
)

// missingEnv tells the tests which kernel feature is missing.
const missingEnv = "SALLYPORT_LAB_MISSING"

// Main is the TestMain of a package whose tests need network namespaces: it runs them in namespaces of
// their own (lab.Isolate). Where the kernel does not allow it, the tests run all the same, and those
// that call Need or NewHost are skipped, each saying which feature is missing.
func Main(m *testing.M) {
	inside, status, err := lab.Isolate(context.Background())
	var missing *lab.FeatureError
	switch {
	case errors.As(err, &missing):
		if err := os.Setenv(missingEnv, missing.Error()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Fprintln(os.Stderr, "SKIP:", missing)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case !inside:
		os.Exit(status)
	}
	os.Exit(m.Run())
}

// Need skips a test, with the reason, where there is no lab.
func Need(t testing.TB) {
	t.Helper()
	if missing := os.Getenv(missingEnv); missing != "" {
		t.Skip(missing)
	}
	if !lab.Isolated() {
		t.Fatal("the package's TestMain must call labtest.Main")
	}
}

// NewHost makes a host that is closed when the test ends.
func NewHost(t testing.TB, name string) *lab.Host {
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
func Must(t testing.TB, steps ...error) {
	t.Helper()
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
}
