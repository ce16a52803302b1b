package cli

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/driver/nft"
)

func cleanupCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything of Sallyport's from this node's kernel",
		Long: `Remove from the kernel what agents have put there, to the last object, and nothing else: from then on no
outgoing connection is translated. It refuses while an agent runs, which would put it back. Manifests and
the last good state stay on disk.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.client().Running(cmd.Context()) {
				return fmt.Errorf("an agent runs on this node (%s) and would put everything back: stop it first", g.socket)
			}
			d, err := nft.New(nft.Options{Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return err
			}
			defer d.Close()
			if err := d.Cleanup(cmd.Context()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing of Sallyport's is left in the kernel")
			return err
		},
	}
}
