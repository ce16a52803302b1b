package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "github.com/sallyport/sallyport"
	root   = "../.."
)

// pkg is what `go list` says of one package, in as far as the rules ask for it.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string // without tests
	Imports    []string

	TestImports, XTestImports []string
}

// graph holds packages by import path: ours, and all that they need.
type graph map[string]pkg

// load reads the import graph of the module as it is built for this machine.
func load(t *testing.T) graph {
	t.Helper()
	touchSources(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing packages: %v\n%s", err, &stderr)
	}
	g := graph{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return g
		} else if err != nil {
			t.Fatalf("reading the output of go list: %v", err)
		}
		g[p.ImportPath] = p
	}
}

// touchSources opens every folder of sources. `go test` notes what a test opens, and takes its result from
// the cache only while that is unchanged; what `go list` reads it does not note.
func touchSources(t *testing.T) {
	t.Helper()
	for _, tree := range []string{"api", "cmd", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, tree), func(string, fs.DirEntry, error) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// ours returns the packages of this module, sorted.
func (g graph) ours() []string {
	var paths []string
	for path := range g {
		if isOurs(path) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// chain returns the shortest chain of imports from a package to one that is sought, both included, or nil
// if there is none. With direct set, only the package's own imports count.
func (g graph) chain(from string, direct bool, sought func(path string) bool) []string {
	type step struct {
		path string
		prev *step
	}
	seen := map[string]bool{from: true}
	for queue := []*step{{path: from}}; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		if direct && s.prev != nil {
			continue
		}
		for _, next := range g[s.path].Imports {
			if seen[next] {
				continue
			}
			seen[next] = true
			found := &step{next, s}
			if !sought(next) {
				queue = append(queue, found)
				continue
			}
			var chain []string
			for ; found != nil; found = found.prev {
				chain = append(chain, found.path)
			}
			slices.Reverse(chain)
			return chain
		}
	}
	return nil
}

func isOurs(path string) bool { return within(path, module) }

// within says whether path is one of the trees' roots or below it.
func within(path string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		return path == tree || strings.HasPrefix(path, tree+"/")
	})
}

// own says whether path is one of the given packages of this module, named as "internal/model", or below.
func own(path string, trees ...string) bool {
	rest, ok := strings.CutPrefix(path, module+"/")
	return ok && within(rest, trees...)
}

// violation is a rule that a package breaks, with the chain of imports that does it.
type violation struct {
	rule  string
	chain []string
}

// String says which rule is broken and by what imports.
func (v violation) String() string {
	short := make([]string, len(v.chain))
	for i, path := range v.chain {
		short[i] = strings.TrimPrefix(path, module+"/")
	}
	return fmt.Sprintf("%s\n\tbut %s", v.rule, strings.Join(short, " imports "))
}
