package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// use forbids some packages a few names of a package that they may import otherwise.
type use struct {
	says  string
	binds func(path string) bool
	of    string   // the import path
	names []string // the exported names that are forbidden
}

var uses = []use{
	{
		says:  "what decides has no clock",
		binds: func(path string) bool { return own(path, pure...) },
		of:    "time",
		names: []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"},
	},
	{
		says:  "drivers never see a Snapshot",
		binds: func(path string) bool { return own(path, "internal/driver") },
		of:    module + "/internal/model",
		names: []string{"Snapshot"},
	},
	{
		says:  "drivers apply plans, they do not compile them",
		binds: func(path string) bool { return own(path, "internal/driver") },
		of:    module + "/internal/compile",
		names: []string{"Compile"},
	},
	{
		says:  "a program exits in one place: only main calls os.Exit",
		binds: func(path string) bool { return own(path, "internal") && !own(path, "internal/tools", "internal/lab") },
		of:    "os",
		names: []string{"Exit"},
	},
	{
		says:  "loggers are injected: no one sets or asks for the default one",
		binds: isOurs,
		of:    "log/slog",
		names: []string{"Default", "SetDefault"},
	},
}

// check returns where a file uses a forbidden name.
func (u use) check(fset *token.FileSet, file *ast.File) []string {
	local := localName(file, u.of)
	if local == "" {
		return nil
	}
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || !slices.Contains(u.names, sel.Sel.Name) {
			return true
		}
		if id, ok := sel.X.(*ast.Ident); ok && id.Name == local {
			found = append(found, fset.Position(sel.Pos()).String()+": "+id.Name+"."+sel.Sel.Name)
		}
		return true
	})
	return found
}

// localName returns the name under which a file imports a package, or "" if it does not. The name of the
// package itself is taken to be the last element of its path.
func localName(file *ast.File, path string) string {
	for _, spec := range file.Imports {
		if imported, err := strconv.Unquote(spec.Path.Value); err != nil || imported != path {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path[strings.LastIndexByte(path, '/')+1:]
	}
	return ""
}

func TestUses(t *testing.T) {
	t.Parallel()
	g := load(t)
	files := 0
	for _, path := range g.ours() {
		for _, name := range g[path].GoFiles {
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(g[path].Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files++
			for _, u := range uses {
				if !u.binds(path) {
					continue
				}
				for _, where := range u.check(fset, file) {
					t.Errorf("%s\n\tbut %s", u.says, where)
				}
			}
		}
	}
	if files < 5 {
		t.Errorf("only %d files were read; the test looks at nothing", files)
	}
}

// TestUseRules breaks the rules in made-up files, to show that it would be noticed.
func TestUseRules(t *testing.T) {
	t.Parallel()
	clock := uses[0]
	tests := []struct {
		name, source string
		found        int
	}{
		{"a forbidden name", `package p; import "time"; var t = time.Now()`, 1},
		{"under another name", `package p; import clock "time"; var t, u = clock.Now(), clock.After`, 2},
		{"a name that is allowed", `package p; import "time"; const d = time.Second`, 0},
		{"the name of another package", `package p; import time "example.org/calendar"; var t = time.Now()`, 0},
		{"no import", `package p; var t = x.Now()`, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, "p.go", tt.source, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if found := clock.check(fset, file); len(found) != tt.found {
				t.Errorf("found %q, want %d", found, tt.found)
			}
		})
	}
}
