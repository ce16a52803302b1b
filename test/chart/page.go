package chart

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Blocks are those of a section of a page, by their language, as they stand there.
type Blocks struct{ Shell, YAML []string }

// Section reads a page of the documentation, and returns what finds a section of it by its title.
func Section(t testing.TB, page string) func(title string) *Blocks {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(Root(t), page))
	if err != nil {
		t.Fatal(err)
	}
	return func(title string) *Blocks {
		t.Helper()
		_, rest, ok := strings.Cut(string(text), "\n## "+title+"\n")
		if !ok {
			t.Fatalf("%s has no section %q", page, title)
		}
		rest, _, _ = strings.Cut(rest, "\n## ")
		out := &Blocks{}
		var into *[]string
		for line := range strings.Lines(rest) {
			bare := strings.TrimSpace(line)
			switch {
			case into != nil && bare == "```":
				into = nil
			case into != nil:
				(*into)[len(*into)-1] += line
			case bare == "```sh":
				out.Shell, into = append(out.Shell, ""), &out.Shell
			case bare == "```yaml":
				out.YAML, into = append(out.YAML, ""), &out.YAML
			}
		}
		return out
	}
}
