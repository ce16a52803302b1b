// Clidoc writes the reference of the command line from the commands themselves, as one page of Markdown.
//
// Cobra's own generator writes a file a command; one page is easier to search.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/cli"
)

func main() {
	out := flag.String("out", "docs/reference/cli.md", "file to write")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "clidoc:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	// A default that this shell's environment decides is none.
	if err := os.Unsetenv("SALLYPORT_DIR"); err != nil {
		return err
	}
	root := cli.Root()
	root.InitDefaultCompletionCmd()
	var page bytes.Buffer
	render(&page, root)
	return os.WriteFile(out, page.Bytes(), 0o644)
}

const header = `<!-- Written by "make docs" from the commands. Do not edit. -->

# Commands

A command prints errors on standard error, and ends with one of these exit codes:

| code | meaning |
|---|---|
| 0 | The command has done what you asked for. ` + "`status`" + `: the node is ready and every file is in force. ` + "`run --dry-run`" + `: there is nothing to change. ` + "`verify from`" + `: address and port are kept. |
| 1 | An error, or a refusal: nothing is done, or the error says what is. ` + "`status`" + `: the agent says that the node is not ready, or that a file is not in force. ` + "`validate`, `get`" + `: there are faults. ` + "`bgp`" + `: a session is down, or BGP does not run as asked. |
| 2 | ` + "`run --dry-run`" + `: there is something to change. ` + "`verify from`" + `: address or port are not kept, nothing came through, or packets vanish for their size. |
| 3 | Not confirmed. ` + "`apply` and `delete` with `--wait`" + `: the manifests are written, and the agent did not confirm in time that the kernel holds them. ` + "`status`" + `: no agent answers. ` + "`verify from`" + `: the verdict is unknown. |
`

func render(w io.Writer, root *cobra.Command) {
	fmt.Fprint(w, header)
	fmt.Fprintf(w, "\nEvery command knows these flags:\n\n```\n%s```\n", root.PersistentFlags().FlagUsagesWrapped(100))
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			renderCommand(w, c)
		}
		if c.Name() == "completion" {
			continue // its own are all alike
		}
		for _, sub := range c.Commands() {
			renderCommand(w, sub)
		}
	}
}

func renderCommand(w io.Writer, c *cobra.Command) {
	fmt.Fprintf(w, "\n## %s\n\n%s.\n\n```\n%s\n```\n", c.CommandPath(), c.Short, c.UseLine())
	if text := strings.TrimSpace(c.Long); text != "" && c.Name() != "completion" {
		fmt.Fprintf(w, "\n%s\n", text)
	}
	if c.HasAvailableSubCommands() {
		fmt.Fprintln(w)
		for _, sub := range c.Commands() {
			fmt.Fprintf(w, "- `%s`: %s.\n", sub.CommandPath(), strings.TrimSuffix(sub.Short, "."))
		}
		return
	}
	if flags := c.LocalNonPersistentFlags(); flags.HasAvailableFlags() {
		fmt.Fprintf(w, "\n```\n%s```\n", flags.FlagUsagesWrapped(100))
	}
	if c.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n\n```sh\n%s\n```\n", unindent(c.Example))
	}
}

func unindent(text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "\n")
}
