package labtest

import (
	"context"
	"testing"
)

// TB is what a lab needs of who builds it: a test, or a program that measures. Every testing.TB is one.
type TB interface {
	Helper()
	Context() context.Context // ends before what Cleanup was given is called
	Cleanup(f func())         // called at the end, the last first
	TempDir() string          // a directory of its own, removed at the end
	Failed() bool

	Logf(format string, args ...any)
	Error(args ...any)                 // notes a failure
	Errorf(format string, args ...any) // notes a failure
	Fatal(args ...any)                 // notes a failure and ends the goroutine
	Fatalf(format string, args ...any) // notes a failure and ends the goroutine
	Skip(args ...any)                  // ends the goroutine: the machine lacks something
}

var _ TB = testing.TB(nil)
