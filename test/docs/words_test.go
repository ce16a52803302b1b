package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unnamed are words that name no subject, or that few readers know. Write which thing it is (the agent, the kernel, a third
// party), and fix, again, or what to give instead.
var unnamed = regexp.MustCompile(`(?i)\b(somebody|anybody|nobody|whoever|mend(s|ed|ing)?|anew|is none of|what is there)\b`)

// TestPlainWords reads what people read: the pages, of which reference/cli.md is --help and reference/api.md is kubectl explain,
// and the texts in the program.
func TestPlainWords(t *testing.T) {
	t.Parallel()
	texts := map[string]string{}
	for _, p := range pages(t) {
		texts[p.path] = p.prose
	}
	files := token.NewFileSet()
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.BasicLit); ok && s.Kind == token.STRING {
				texts[files.Position(s.Pos()).String()] = s.Value
			}
			return true
		})
		return nil
	})
	if err != nil || len(texts) < 1000 {
		t.Fatalf("%d texts were found: %v", len(texts), err)
	}
	for _, path := range []string{"deploy/prometheus/sallyport-rules.yaml", "deploy/grafana/sallyport.json", "deploy/helm/sallyport/templates/NOTES.txt", "deploy/helm/sallyport/values.yaml"} {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	for where, text := range texts {
		for _, word := range unnamed.FindAllString(text, -1) {
			t.Errorf("%s says %q", where, word)
		}
	}
}
