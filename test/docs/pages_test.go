// Package docs tests what the documentation says: its links resolve, its manifests are valid, and its
// commands, targets and metrics exist.
package docs

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// block is a fenced block of code.
type block struct {
	language string
	line     int // of its first line, from 1
	text     string
}

// page is a Markdown file.
type page struct {
	path   string // from the root of the repository
	blocks []block
	prose  string // everything outside the blocks
}

// pages reads every page of the repository.
func pages(t *testing.T) []page {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []page
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, parse(name, string(text)))
	}
	if len(out) < 8 {
		t.Fatalf("only %d pages were found; the tests look at nothing", len(out))
	}
	return out
}

// parse splits a page into prose and blocks of code.
func parse(path, text string) page {
	p := page{path: path}
	var prose, code strings.Builder
	var open *block
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && open == nil:
			open = &block{language: fence, line: n + 1}
		case isFence:
			open.text = code.String()
			p.blocks = append(p.blocks, *open)
			open = nil
			code.Reset()
		case open != nil:
			code.WriteString(line + "\n")
		default:
			prose.WriteString(line + "\n")
		}
	}
	p.prose = prose.String()
	return p
}

var (
	headings = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	nonSlug  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors are the names by which the headings of a page can be linked to, as GitHub makes them.
func (p page) anchors() map[string]bool {
	out := map[string]bool{}
	for _, m := range headings.FindAllStringSubmatch(p.prose, -1) {
		slug := nonSlug.ReplaceAllString(strings.ToLower(m[1]), "")
		out[strings.ReplaceAll(slug, " ", "-")] = true
	}
	return out
}

// brokenLinks returns the links of a page to files or headings that do not exist. exists answers for a
// path from the root.
func (p page) brokenLinks(all map[string]page, exists func(path string) bool) []string {
	var broken []string
	for _, m := range links.FindAllStringSubmatch(p.prose, -1) {
		link := m[1]
		if strings.Contains(link, "://") {
			continue
		}
		path, anchor, _ := strings.Cut(link, "#")
		target := p.path
		if path != "" {
			target = filepath.Join(filepath.Dir(p.path), path)
		}
		if !exists(target) || anchor != "" && !all[target].anchors()[anchor] {
			broken = append(broken, link)
		}
	}
	return broken
}

func TestLinks(t *testing.T) {
	t.Parallel()
	all := map[string]page{}
	for _, p := range pages(t) {
		all[p.path] = p
	}
	for _, p := range all {
		broken := p.brokenLinks(all, func(path string) bool {
			_, err := os.Stat(filepath.Join(root, path))
			return err == nil
		})
		for _, link := range broken {
			t.Errorf("%s: the link %s leads nowhere", p.path, link)
		}
	}
}

// TestLinksBroken shows that a broken link would be noticed.
func TestLinksBroken(t *testing.T) {
	t.Parallel()
	there := parse("docs/there.md", "# A title, with `code`\n")
	here := parse("docs/here.md", "[a](there.md) [b](there.md#a-title-with-code) [c](#here)\n"+
		"[d](gone.md) [e](there.md#gone) [f](https://example.org/gone)\n# Here\n```\n[g](code.md)\n```\n")
	all := map[string]page{there.path: there, here.path: here}
	broken := here.brokenLinks(all, func(path string) bool { _, ok := all[path]; return ok })
	if got := strings.Join(broken, " "); got != "gone.md there.md#gone" {
		t.Errorf("broken links: %q, want gone.md and there.md#gone", got)
	}
}
