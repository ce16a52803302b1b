package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
)

// scope lets this program use what is written for tests: it ends what was started in it, and makes an error of
// what would have failed a test. It is a labtest.TB.
type scope struct {
	ctx context.Context
	tmp string

	mu       sync.Mutex
	cleanups []func()
	failures []error
}

// within runs a function in a scope of its own and returns what failed in it.
func within(ctx context.Context, tmp string, do func(*scope) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := &scope{ctx: ctx, tmp: tmp}
	s.run(func() {
		if err := do(s); err != nil {
			s.Error(err)
		}
	})
	stop()
	for {
		s.mu.Lock()
		n := len(s.cleanups)
		if n == 0 {
			defer s.mu.Unlock()
			return errors.Join(s.failures...)
		}
		f := s.cleanups[n-1]
		s.cleanups = slices.Delete(s.cleanups, n-1, n)
		s.mu.Unlock()
		s.run(f)
	}
}

// run calls a function that may end its goroutine.
func (s *scope) run(f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	<-done
}

func (s *scope) Helper()                  {}
func (s *scope) Context() context.Context { return s.ctx }

func (s *scope) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *scope) TempDir() string {
	dir, err := os.MkdirTemp(s.tmp, "scope-")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			s.Error(err)
		}
	})
	return dir
}

func (s *scope) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.failures) > 0
}

func (s *scope) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (s *scope) Error(args ...any) { s.fail(errors.New(fmt.Sprint(args...))) }

func (s *scope) Errorf(format string, args ...any) { s.fail(fmt.Errorf(format, args...)) }

func (s *scope) Fatal(args ...any) { s.Error(args...); runtime.Goexit() }

func (s *scope) Fatalf(format string, args ...any) { s.Errorf(format, args...); runtime.Goexit() }

// Skip is a failure: what cannot be measured must not look as if it had been.
func (s *scope) Skip(args ...any) { s.Fatal(args...) }

// failed notes an error, where there is one.
func (s *scope) failed(err error) {
	if err != nil {
		s.fail(err)
	}
}

func (s *scope) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, err)
}
