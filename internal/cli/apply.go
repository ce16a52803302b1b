package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/text"
	"github.com/sallyport/sallyport/internal/validate"
)

func applyCommand(g *global) *cobra.Command {
	var files []string
	var wait time.Duration
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Write resources into the directory of manifests",
		Long: `Write resources into the directory of manifests, which the agent watches. An object that is declared there
is changed where it stands: the lines that say something else change, and all others stay as they are, with
their comments, byte for byte. A field that is removed takes the comments on its lines, and right above it,
along. A changed value on several lines loses the comments inside it, and so does a changed item of a list that
gets longer or shorter. Another object gets a file of its own, KIND_NAME.yaml.

Where the command cannot change YAML and keep its comments, such as an anchor that an alias repeats, it refuses
and names the object. It writes a file of JSON again as a whole.

One invalid document and nothing is written, nor while another document in the directory is faulty, or the agent says
that a mount hides the directory. What is immutable, such as a pool's cidr, is refused: delete the pool and create another.`,
		Example: "  sallyport apply -f pool.yaml --wait 5s\n  sallyport get pool private -o yaml | sed s/true/false/ | sallyport apply -f -",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := validate.New()
			ctx, left, cancel := bounded(cmd.Context(), wait)
			defer cancel()
			manifests, err := readManifests(ctx, cmd, files, nil)
			if err != nil {
				return err
			}
			others, err := g.editable(ctx, cmd.ErrOrStderr(), keysIn(manifests))
			if err != nil {
				return err
			}
			results, err := manifest.Apply(ctx, g.dir, v, manifests, others, dryRun)
			if err != nil {
				return err
			}
			if len(results) == 0 {
				return errors.New("nothing to apply: no object was given")
			}
			suffix := ""
			if dryRun {
				suffix = " (dry run)"
			}
			for _, r := range results {
				say(human(cmd), "%s %s%s\n", fullName(r.Kind, r.Name), r.Action, suffix)
			}
			if wait == 0 || dryRun {
				return nil
			}
			return waitHeld(cmd, g, results, left())
		},
	}
	filesFlag(cmd, &files)
	waitFlag(cmd, &wait, waitUsage)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done and write nothing")
	return cmd
}

// waitUsage describes --wait where something is written.
const waitUsage = "wait up to this long, such as 5s, until the agent holds the result in the kernel; exit code 3 if it does not confirm that"

// bounded is a context for what a command waits for by --wait, and says how much of that time is left. Without --wait there
// is no bound.
func bounded(ctx context.Context, wait time.Duration) (_ context.Context, left func() time.Duration, cancel context.CancelFunc) {
	if wait == 0 {
		return ctx, func() time.Duration { return 0 }, func() {}
	}
	end := time.Now().Add(wait)
	ctx, cancel = context.WithDeadline(ctx, end)
	return ctx, func() time.Duration { return max(0, time.Until(end)) }, cancel
}

// waitValue is the value of --wait: a time from 0 to agent.MaxWait.
type waitValue time.Duration

func (v *waitValue) String() string { return time.Duration(*v).String() }
func (v *waitValue) Type() string   { return "duration" }

func (v *waitValue) Set(s string) error {
	switch d, err := time.ParseDuration(s); {
	case err != nil:
		return errors.New("is no time such as 5s or 1m30s")
	case d < 0 || d > agent.MaxWait:
		return fmt.Errorf("must be from 0s to %s, such as 5s", agent.MaxWait)
	default:
		*v = waitValue(d)
		return nil
	}
}

func waitFlag(cmd *cobra.Command, wait *time.Duration, usage string) {
	cmd.Flags().Var((*waitValue)(wait), "wait", usage)
}

// waitHeld waits until the kernel of this node holds what was written.
func waitHeld(cmd *cobra.Command, g *global, results []manifest.Result, wait time.Duration) error {
	digests := make([]agent.ObjectDigest, 0, len(results))
	for _, r := range results {
		digests = append(digests, agent.ObjectDigest{Kind: r.Kind, Name: r.Name, Digest: r.Digest})
	}
	r, err := g.client().Wait(cmd.Context(), digests, wait)
	switch {
	case err != nil:
		return unconfirmedError{fmt.Errorf("done in the manifests, but not known to be in the kernel: %w", err)}
	case !r.Held:
		return unconfirmedError{fmt.Errorf("done in the manifests, but not in the kernel after %s: %s", wait, text.Line(r.Reason))}
	default:
		return nil
	}
}
