package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/cli"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/validate"
)

// TestManifests validates every manifest that a reader may copy.
func TestManifests(t *testing.T) {
	t.Parallel()
	v := validate.New()
	manifests := map[string]string{}
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language == "yaml" {
				manifests[fmt.Sprintf("%s:%d", p.path, b.line)] = b.text
			}
		}
	}
	examples, err := filepath.Glob(filepath.Join(root, "docs/examples/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		manifests[path] = string(text)
	}
	if len(examples) == 0 || len(manifests) < 8 {
		t.Fatalf("only %d manifests were found; the test looks at nothing", len(manifests))
	}
	for where, text := range manifests {
		read, err := manifest.Read([]string{"-"}, strings.NewReader(text), v)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		if len(read.Objects()) == 0 {
			t.Errorf("%s: holds no object", where)
		}
		for _, fault := range read.Faults() {
			t.Errorf("%s: %s", where, fault)
		}
	}
}

// TestCommands parses every command line of ours that a reader may copy, as the program would.
func TestCommands(t *testing.T) {
	t.Parallel()
	commands := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			if b.language != "sh" {
				continue
			}
			for _, args := range commandLines(b.text, "sallyport") {
				commands++
				if err := parses(cli.Root(), args); err != nil {
					t.Errorf("%s:%d: sallyport %s: %v", p.path, b.line, strings.Join(args, " "), err)
				}
			}
		}
	}
	if commands < 10 {
		t.Errorf("only %d commands were found; the test looks at nothing", commands)
	}
}

// commandLines returns the arguments of each call of a program in a block of shell commands. Quotes are
// not understood; no command of ours needs them.
func commandLines(text, program string) [][]string {
	var out [][]string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, " #")
		for call := range strings.SplitSeq(line, "|") {
			words := strings.Fields(call)
			if len(words) > 0 && words[0] == "sudo" {
				words = words[1:]
			}
			if len(words) > 0 && words[0] == program {
				out = append(out, words[1:])
			}
		}
	}
	return out
}

// parses says whether the program would understand its arguments.
func parses(root *cobra.Command, args []string) error {
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if err := cmd.ValidateRequiredFlags(); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// TestCommandsWrong shows that a wrong command line would be noticed.
func TestCommandsWrong(t *testing.T) {
	t.Parallel()
	const text = "sallyport conquer\nsudo sallyport status --wait 5s # fine\ncat x | sallyport status --hurry\nsallyport explain 10.0.0.1\n"
	var wrong []string
	for _, args := range commandLines(text, "sallyport") {
		if parses(cli.Root(), args) != nil {
			wrong = append(wrong, strings.Join(args, " "))
		}
	}
	if got, want := strings.Join(wrong, ", "), "conquer, status --hurry, explain 10.0.0.1"; got != want {
		t.Errorf("wrong commands: %q, want %q", got, want)
	}
}

// TestTargets looks for every make target that a reader is told to use.
func TestTargets(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			for _, args := range commandLines(b.text, "make") {
				for _, target := range args {
					if strings.Contains(target, "=") {
						continue
					}
					targets++
					if !strings.Contains(string(makefile), "\n"+target+":") {
						t.Errorf("%s:%d: there is no make %s", p.path, b.line, target)
					}
				}
			}
		}
	}
	if targets < 4 {
		t.Errorf("only %d targets were found; the test looks at nothing", targets)
	}
}

// TestMetrics compares the metrics that are described with those in the source. They are made when asked
// for, by an agent that runs, so the source is the only place that names them all.
func TestMetrics(t *testing.T) {
	t.Parallel()
	in := func(files, pattern string) []string {
		paths, err := filepath.Glob(filepath.Join(root, files))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
				names = append(names, m[1])
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	source := append(in("internal/agent/*.go", `\bdesc\("(\w+)"`), in("internal/controller/*.go", `\bName: "sallyport_(\w+)"`)...)
	slices.Sort(source)
	described := in("docs/reference/metrics.md", "(?m)^\\| `sallyport_(\\w+)`")
	if len(source) == 0 || !slices.Equal(source, described) {
		t.Errorf("docs/reference/metrics.md describes %q, the agent and the controller have %q", described, source)
	}
}
