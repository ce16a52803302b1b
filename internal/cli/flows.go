package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
)

// tableRows is after how many flows the table so far is printed: a listing may have millions, which must not gather in memory.
const tableRows = 1000

// watchPause is the time between two lists of `flows --watch`.
const watchPause = 2 * time.Second

func flowsCommand(g *global) *cobra.Command {
	var source, destination, seenAs, output string
	var filter agent.FlowFilter
	var watch bool
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "List the translated connections of this node",
		Long: `List the connections of pods that the kernel translates at this moment: the pod, who answers it, the address and
port by which it is seen outside, and the pool. The agent reads them from the kernel; they come in no order.

Each of --source, --destination and --seen-as takes an address, a range, or an address with a port. A destination
is who answers, or the service that the pod has asked. For ICMP, the identifier stands in place of the port.

AGE is known where the kernel records it: sysctl net.netfilter.nf_conntrack_timestamp=1. A state followed by
"(older)" is that of a connection which the plan in force would not translate so.`,
		Example: "  sallyport flows --seen-as 192.0.2.10:40312\n  sallyport flows --source 10.244.1.0/24 --proto udp --watch\n  sallyport flows --pool private --limit 0 -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			if err := parseFilter(&filter, map[string]string{"source": source, "destination": destination, "seen-as": seenAs}); err != nil {
				return err
			}
			return listFlows(cmd, g.client(), filter, output == "json", watch)
		},
	}
	cmd.Flags().StringVar(&source, "source", "", "of these pods")
	cmd.Flags().StringVar(&destination, "destination", "", "to these")
	cmd.Flags().StringVar(&seenAs, "seen-as", "", "seen outside as these")
	cmd.Flags().StringVar(&filter.Pool, "pool", "", "of this pool")
	cmd.Flags().StringVar(&filter.Protocol, "proto", "", "tcp, udp, sctp, icmp, or a protocol number")
	cmd.Flags().IntVar(&filter.Limit, "limit", 1000, "list at most so many; 0: all")
	cmd.Flags().BoolVar(&watch, "watch", false, "list again every two seconds, until interrupted")
	outputFlag(cmd, &output, "json")
	must(cmd.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"tcp", "udp", "sctp", "icmp"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("pool", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return completeObjects(g)(cmd, []string{"ippool"}, typed)
	}))
	return cmd
}

// parseFilter reads the flags that hold addresses, and checks the others.
func parseFilter(f *agent.FlowFilter, addresses map[string]string) error {
	for flag, to := range map[string]*agent.Ends{"source": &f.Source, "destination": &f.Destination, "seen-as": &f.SeenAs} {
		if addresses[flag] == "" {
			continue
		}
		e, err := agent.ParseEnds(addresses[flag])
		if err != nil {
			return fmt.Errorf("--%s: %w", flag, err)
		}
		*to = e
	}
	if f.Limit < 0 {
		return fmt.Errorf("--limit: %d is less than 0; use 0 for all", f.Limit)
	}
	if f.Protocol != "" {
		p, err := parseProtocol(f.Protocol, true)
		if err != nil {
			return err
		}
		f.Protocol = p.String()
	}
	return nil
}

func listFlows(cmd *cobra.Command, c *agent.Client, filter agent.FlowFilter, asJSON, watch bool) error {
	ctx, out := cmd.Context(), human(cmd)
	if asJSON {
		out = cmd.OutOrStdout()
	}
	for {
		more, err := printFlows(ctx, out, c, filter, asJSON)
		interrupted := watch && ctx.Err() != nil // as a watch ends
		if err != nil && !interrupted {
			return err
		}
		if more {
			fmt.Fprintf(cmd.ErrOrStderr(), "sallyport: only %d are listed, and there are more: choose fewer, or use --limit 0\n", filter.Limit)
		}
		if !watch || interrupted {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchPause):
		}
		if !asJSON {
			fmt.Fprintln(out)
		}
	}
}

func printFlows(ctx context.Context, w io.Writer, c *agent.Client, filter agent.FlowFilter, asJSON bool) (more bool, err error) {
	if asJSON {
		e := json.NewEncoder(w)
		return c.Flows(ctx, filter, func(f agent.Flow) error { return e.Encode(f) })
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POD\tDESTINATION\tSEEN AS\tPOOL\tPROTOCOL\tSTATE\tAGE")
	rows := 0
	more, err = c.Flows(ctx, filter, func(f agent.Flow) error {
		if rows++; rows > tableRows {
			rows = 1
			if err := t.Flush(); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintln(t, flowRow(f))
		return err
	})
	if err != nil {
		return more, err
	}
	return more, t.Flush()
}

func flowRow(f agent.Flow) string {
	destination, age, state := endpoint(f.Destination), "-", f.State
	if f.Service != nil {
		destination += " (" + endpoint(*f.Service) + ")"
	}
	if f.AgeSeconds != nil {
		age = (time.Duration(*f.AgeSeconds) * time.Second).String()
	}
	if f.Older {
		state += " (older)"
	}
	source := endpoint(f.Source)
	if f.Pod != "" {
		source += " (" + f.Pod + ")"
	}
	return saying("%s\t%s\t%s\t%s\t%s\t%s\t%s", source, destination, endpoint(f.SeenAs), f.Pool, f.Protocol, state, age)
}

// endpoint leaves out the port where there is none.
func endpoint(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
