package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestRender(t *testing.T) {
	t.Parallel()
	root := &cobra.Command{Use: "gate"}
	root.PersistentFlags().String("wall", "north", "which wall")
	open := &cobra.Command{Use: "open NAME", Short: "Open a gate", Long: "Open it slowly.",
		Example: "  gate open west", Run: func(*cobra.Command, []string) {}}
	open.Flags().Bool("wide", false, "as far as it goes")
	hidden := &cobra.Command{Use: "trap", Hidden: true, Run: func(*cobra.Command, []string) {}}
	root.AddCommand(open, hidden)

	var page strings.Builder
	render(&page, root)
	got := page.String()
	rest := got
	for _, want := range []string{"--wall string", "\n## gate open\n\nOpen a gate.\n", "gate open NAME [flags]",
		"\nOpen it slowly.\n", "--wide", "```sh\ngate open west\n```"} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Errorf("lacks %q in its place:\n%s", want, got)
		}
		rest = after
	}
	if strings.Contains(got, "trap") {
		t.Errorf("shows a hidden command:\n%s", got)
	}
}
