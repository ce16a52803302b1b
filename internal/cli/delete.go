package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

func deleteCommand(g *global) *cobra.Command {
	var files []string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "delete (KIND NAME... | -f FILE|DIR|-)",
		Short: "Remove resources from the directory of manifests",
		Long: `Remove resources from the directory of manifests. What stands around them in a file stays as it is, byte for
byte; a file in which nothing is left is removed. It refuses while another document there is faulty.

Where another directory has taken the place of the one from which the resources in force were read, the agent holds
those that it lacks. The command then confirms that the ones you name are to go.

Without its pool, an address is no longer translated, nor exempt as a destination.`,
		Example:           "  sallyport delete ippool private --wait 5s\n  sallyport delete -f pool.yaml",
		ValidArgsFunction: completeObjects(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			v := validate.New()
			ctx, left, cancel := bounded(cmd.Context(), wait)
			defer cancel()
			keys, err := keysOf(ctx, cmd, files, args)
			if err != nil {
				return err
			}
			results, err := g.remove(ctx, cmd.ErrOrStderr(), v, keys)
			for _, r := range results {
				say(human(cmd), "%s %s\n", fullName(r.Kind, r.Name), r.Action)
			}
			if wait == 0 || len(results) == 0 {
				return err
			}
			if err == nil {
				return waitHeld(cmd, g, results, left())
			}
			return errors.Join(err, waitHeld(cmd, g, results, left()))
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "delete what this file, directory, or - for standard input declares; may be repeated")
	waitFlag(cmd, &wait, waitUsage)
	must(cmd.MarkFlagFilename("filename", "yaml", "yml", "json"))
	return cmd
}

// keysOf is what a person wants to delete, named by arguments or by files.
func keysOf(ctx context.Context, cmd *cobra.Command, files, args []string) ([]model.Key, error) {
	switch {
	case len(files) > 0 && len(args) > 0:
		return nil, errors.New("give either KIND NAME... or -f, not both")
	case len(files) > 0:
		manifests, err := readManifests(ctx, cmd, files, nil)
		if err != nil {
			return nil, err
		}
		if faults := manifests.Unreadable(); len(faults) > 0 {
			return nil, &manifest.FaultsError{Reason: "nothing was deleted, since not everything can be read", Faults: faults}
		}
		keys := keysIn(manifests)
		if len(keys) == 0 {
			return nil, errors.New("nothing to delete: no object was given")
		}
		return keys, nil
	case len(args) < 2:
		return nil, errors.New("say what to delete: KIND NAME..., or -f FILE")
	}
	r, err := findResource(args[0])
	if err != nil {
		return nil, err
	}
	keys := make([]model.Key, 0, len(args)-1)
	for _, name := range args[1:] {
		keys = append(keys, model.Key{Kind: r.kind, Name: name})
	}
	return keys, nil
}

// keysIn names the objects of manifests.
func keysIn(m *manifest.Manifests) []model.Key {
	objects := m.Objects()
	keys := make([]model.Key, len(objects))
	for i := range objects {
		keys[i] = objects[i].Key
	}
	return keys
}
