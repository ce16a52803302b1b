package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/dir"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

// datastoreFlags adds the flags that say where resources are read.
func datastoreFlags(cmd *cobra.Command, g *global) {
	known := []string{string(agent.Directory), string(agent.Kubernetes)}
	cmd.Flags().StringVar(&g.datastore, "datastore", string(agent.Directory), "where pools and settings are: directory (--dir), or kubernetes (the API of a cluster)")
	cmd.Flags().StringVar(&g.kubeconfig, "kubeconfig", "", "file that says how the API server is reached, with --datastore kubernetes")
	must(cmd.RegisterFlagCompletionFunc("datastore", cobra.FixedCompletions(known, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.MarkFlagFilename("kubeconfig"))
}

// checkDatastore refuses a datastore that does not exist, and a kubeconfig where none is needed.
func (g *global) checkDatastore() error {
	switch agent.Datastore(g.datastore) {
	case agent.Kubernetes:
		return nil
	case agent.Directory:
		if g.kubeconfig != "" {
			return fmt.Errorf("--kubeconfig: is for --datastore %s", agent.Kubernetes)
		}
		return nil
	default:
		return fmt.Errorf("--datastore: %q is neither %s nor %s", g.datastore, agent.Directory, agent.Kubernetes)
	}
}

// source names what load reads.
func (g *global) source() string {
	if g.datastore == string(agent.Kubernetes) {
		return "the API of the cluster"
	}
	return g.dir
}

// load reads what is declared now; of the blocks of nodes, which may be many, only with blocks.
func (g *global) load(ctx context.Context, blocks bool) (*datastore.Loaded, error) {
	if err := g.checkDatastore(); err != nil {
		return nil, err
	}
	if g.datastore == string(agent.Kubernetes) {
		cfg, err := kube.UserConfig(g.kubeconfig)
		if err != nil {
			return nil, err
		}
		return kube.Load(ctx, cfg, buildVersion(), blocks)
	}
	return loadDir(g.dir)
}

// sayFaults says what is faulty among what was loaded, and what that means for what is printed.
func (g *global) sayFaults(w io.Writer, faults []model.Fault) {
	for _, f := range faults {
		say(w, "sallyport: %s\n", f)
	}
	if len(faults) > 0 && g.datastore == string(agent.Kubernetes) {
		fmt.Fprintln(w, "sallyport: what follows leaves these out; an agent that has read one before it was faulty goes by what it said then")
	}
}

// loadDir reads and validates the manifests as they stand now.
func loadDir(path string) (*datastore.Loaded, error) {
	return dir.Load(path, validate.New())
}
