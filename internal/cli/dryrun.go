package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore/lastgood"
	"github.com/sallyport/sallyport/internal/driver/hostaddr"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// dryRun says what an agent on this node would change in the kernel by the manifests as they are, and
// changes nothing. Its error is errDiffers if there is something to change.
func dryRun(cmd *cobra.Command, g *global, cfg agent.Config, output string) error {
	snapshot, faults, err := g.foresee(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	g.sayFaults(cmd.ErrOrStderr(), faults)
	if len(faults) > 0 && g.datastore != string(agent.Kubernetes) {
		return errors.New("there are faulty manifests: an agent would change nothing before they are fixed")
	}
	interfaces, err := hostaddr.List()
	if err != nil {
		return err
	}
	p, err := preview(cmd.Context(), compile.Compile(snapshot, model.Local{Name: cfg.NodeName, Interfaces: interfaces}))
	if err != nil {
		return err
	}
	if output == "json" {
		err = printJSON(cmd.OutOrStdout(), p)
	} else {
		err = printPreview(human(cmd), p)
	}
	if err == nil && !p.Equal {
		return errDiffers
	}
	return err
}

// foresee is what an agent would go by. The agent that runs says what is wrong with its directory itself. Without one, the
// last good state does.
func (g *global) foresee(ctx context.Context, cfg agent.Config) (*model.Snapshot, []model.Fault, error) {
	if cfg.Datastore == agent.Directory {
		said, err := g.client().Directory(ctx, nil)
		switch {
		case err != nil:
			cfg.Log = slog.New(slog.DiscardHandler)
			state, failed := agent.Foresee(ctx, cfg)
			if errors.Is(failed, lastgood.ErrLocked) {
				failed = fmt.Errorf("%w, and does not say what it holds: %w", failed, err)
			} else if failed == nil && state.Snapshot == nil && len(state.Faults) == 0 {
				failed = errors.New("the manifests are being written: try again when they are complete")
			}
			return state.Snapshot, state.Faults, failed
		case said.Fault != nil && sameDir(said.Dir, g.dir):
			return nil, []model.Fault{*said.Fault}, nil
		}
	}
	loaded, err := g.load(ctx, false)
	if err != nil {
		return nil, nil, err
	}
	return loaded.Snapshot, loaded.Faults, nil
}

func preview(ctx context.Context, plan *compile.Plan) (*nftables.Preview, error) {
	d, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if err := d.Check(ctx); err != nil {
		return nil, err
	}
	return d.Preview(ctx, plan.NAT)
}

func printPreview(w io.Writer, p *nftables.Preview) error {
	switch {
	case p.Equal:
		_, err := io.WriteString(w, saying("table %s holds what the manifests say: there is nothing to change\n", p.Table))
		return err
	case !p.Present:
		say(w, "table %s would be made:\n", p.Table)
	case p.Replaced:
		say(w, "table %s would be deleted and made again, in one transaction, since it is dormant or holds strange things. What differs:\n", p.Table)
	default:
		say(w, "table %s would be changed, in one transaction:\n", p.Table)
	}
	for _, s := range p.Sets {
		say(w, "  set %s%s: ranges -%d +%d\n", s.Name, fate(s.Gone, s.New), s.Remove, s.Add)
		printRanges(w, "-", s.RemoveFirst, s.Remove)
		printRanges(w, "+", s.AddFirst, s.Add)
	}
	for _, c := range p.Chains {
		say(w, "  chain %s%s\n", c.Name, fate(c.Gone, c.New))
		printLines(w, "-", c.Remove)
		printLines(w, "+", c.Add)
	}
	_, err := fmt.Fprintln(w, "Nothing was changed.")
	return err
}

func fate(gone, come bool) string {
	switch {
	case gone && come:
		return " (replaced)"
	case gone:
		return " (gone)"
	case come:
		return " (new)"
	}
	return ""
}

func printRanges(w io.Writer, sign string, first []string, all int) {
	printLines(w, sign, first)
	if more := all - len(first); more > 0 {
		say(w, "    %s and %d more\n", sign, more)
	}
}

func printLines(w io.Writer, sign string, lines []string) {
	for _, l := range lines {
		say(w, "    %s %s\n", sign, l)
	}
}
