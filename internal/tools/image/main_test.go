package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// TestFaults gives the program what it cannot work with, and expects to be told what is wrong.
func TestFaults(t *testing.T) {
	t.Parallel()
	bin, _ := built(t)
	dir := t.TempDir()
	amd64 := filepath.Join(bin, "linux-amd64/sallyport")
	other := patched(t, amd64, "\tGOARCH=amd64\n", "\tGOARCH=s390x\n")
	liar := patched(t, amd64, "\tGOARCH=amd64\n", "\tGOARCH=arm64\n")
	alone := patched(t, amd64, "\tGOARCH=amd64\n", "\tGOARCH=amd64\n")
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	build := func(args ...string) []string {
		return append([]string{"build", "-out", filepath.Join(dir, "image"), "-archives", filepath.Join(dir, "x-")}, args...)
	}
	good := []string{"-version", "v1", "-created", "1700000000"}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no command":         {nil, "no command"},
		"unknown command":    {[]string{"pull"}, `there is no command "pull"`},
		"no directory":       {[]string{"build", amd64}, "-out, -archives and at least one binary are needed"},
		"no binary":          {build(good...), "at least one binary"},
		"no version":         {build("-created", "1", amd64), "-version is empty"},
		"version with plus":  {build("-version", "v1+x", "-created", "1", amd64), `"v1+x" cannot be an image's tag`},
		"no time":            {build("-version", "v1", amd64), "SOURCE_DATE_EPOCH"},
		"time in words":      {build("-version", "v1", "-created", "now", amd64), `"now": it has to be seconds since 1970`},
		"time before 1970":   {build("-version", "v1", "-created", "-1", amd64), "seconds since 1970"},
		"time in nanosecs":   {build("-version", "v1", "-created", "1700000000000000000", amd64), "seconds since 1970"},
		"no such file":       {build(append(good, text+"x")...), "no such file"},
		"no Go program":      {build(append(good, text)...), "it is no Go program"},
		"other architecture": {build(append(good, other)...), "it is built for linux/s390x, want linux/amd64 or linux/arm64"},
		"wrong ELF header":   {build(append(good, liar)...), "the ELF file is for EM_X86_64, want EM_AARCH64"},
		"no plugin":          {build(append(good, alone)...), "with its plugin"},
		"twice":              {build(append(good, amd64, amd64)...), "two binaries for linux/amd64"},
		"someone's files":    {append([]string{"build", "-out", filepath.Dir(text), "-archives", "x"}, append(good, amd64)...), "is no OCI layout, and is left alone"},
		"nowhere to push":    {[]string{"push", "-layout", dir, ""}, "make image-push IMAGE="},
		"push without tag":   {[]string{"push", "-layout", dir, "ghcr.io/a/b"}, "want registry/name:tag"},
		"push of nothing":    {[]string{"push", "-layout", dir, "localhost:1/b:c"}, "run make image first"},
	} {
		err := run(t.Context(), c.args, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	if left, err := os.ReadFile(text); err != nil || len(left) == 0 {
		t.Errorf("a file that is not ours was touched: %v", err)
	}
}

// patched is a copy of a binary with other build information of the same length.
func patched(t *testing.T, path, from, to string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(content, []byte(from)) {
		t.Fatalf("%s holds no %q", path, from)
	}
	out := filepath.Join(t.TempDir(), "sallyport")
	if err := os.WriteFile(out, bytes.ReplaceAll(content, []byte(from), []byte(to)), 0o755); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStatic(t *testing.T) {
	t.Parallel()
	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := static(shell, machines[runtime.GOARCH]); err == nil || !strings.Contains(err.Error(), "linked dynamically") {
		t.Errorf("the shell passes for a static program: %v", err)
	}
}

// TestDirectoryModule makes sure that a module without a version is not left out of the SBOM in silence.
func TestDirectoryModule(t *testing.T) {
	t.Parallel()
	_, err := componentOf(&debug.Module{Path: "example.com/a", Version: "v1.0.0", Replace: &debug.Module{Path: "../a"}})
	if err == nil || !strings.Contains(err.Error(), "../a is a directory") {
		t.Errorf("got %v", err)
	}
}
