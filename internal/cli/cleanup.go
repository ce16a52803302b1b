package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
)

func cleanupCommand(g *global) *cobra.Command {
	var stay bool
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything of Sallyport's from this node's kernel",
		Long: `Remove from the kernel what agents have put there, to the last object, and nothing else: from then on no
outgoing connection is translated. Where the agent is the pod network, its workloads lose their interfaces. An agent that runs removes it and ends; if it is a service, disable that
too ("systemctl disable --now sallyport"), so that it does not put everything back at the next boot. Where
the agent cannot remove all, does not answer, or you interrupt the command, the agent goes on and puts back
what it has removed. Manifests and the last good state stay on disk.

With --stay it does not end before it is told to by a signal: so a DaemonSet can run it on every node.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stopped, err := agent.Cleanup(cmd.Context(), g.socket)
			if stopped != 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "the agent (pid %d) was stopped\n", stopped)
			}
			if err != nil {
				return err
			}
			if _, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing of Sallyport's is left in the kernel"); err != nil || !stay {
				return err
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().BoolVar(&stay, "stay", false, "after that, wait for a signal to end")
	return cmd
}
