// Apidoc writes the reference of the resources from their CustomResourceDefinitions, as Markdown.
//
// It reads the generated definitions and not the Go types, because these are what an API server and
// package validate enforce. The general generators know many things that these two kinds do not need, and
// bring a configuration and templates of their own.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sallyport/sallyport/internal/yaml"
)

func main() {
	crds := flag.String("crds", "api/crds", "directory of CustomResourceDefinitions")
	out := flag.String("out", "docs/reference/api.md", "file to write")
	flag.Parse()
	if err := run(*crds, *out); err != nil {
		fmt.Fprintln(os.Stderr, "apidoc:", err)
		os.Exit(1)
	}
}

func run(dir, out string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no definitions in %s", dir)
	}
	slices.Sort(files)
	definitions := make([]definition, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := yaml.Unmarshal(text, &definitions[i]); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
	}
	var page bytes.Buffer
	render(&page, definitions)
	return os.WriteFile(out, page.Bytes(), 0o644)
}
