package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sallyport/sallyport/internal/controller"
	"github.com/sallyport/sallyport/internal/datastore/kube"
)

// namespaceVariable holds the namespace of this pod, where its manifest puts it.
const namespaceVariable = "POD_NAMESPACE"

func controllerCommand(g *global) *cobra.Command {
	o := controller.Options{Version: buildVersion(), UnknownAfter: g.pace.UnknownAfter}
	var kubeconfig, nodes, format, level string
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Write the conditions of pools, settings and nodes in a cluster",
		Long: `Write into the API of a cluster, for each IPPool, whether it can give out addresses (Allocatable) and whether
every ready node holds it (Programmed), from what the agents report; for each NATConfiguration, whether it decides
anything (Accepted) and whether the nodes that it selects go by it (Programmed); and of each node whose agent has given
no sign of life for 2 minutes, that it is unknown. Of several controllers the holder of a Lease writes. Nothing about
packets depends on it.

Where the definition of IPPools is Calico's, it writes nothing about pools.

With --network it keeps each pool until its last block is back, and gives back the blocks of a node that has had neither a
Node nor a heartbeat of its agent for 15 minutes. It clears the condition NetworkUnavailable, which clouds set on Nodes, once
the agent of the node has the pod network ready.`,
		Example: "  sallyport controller --kubeconfig ~/.kube/config --lease-namespace sallyport-system",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.LeaseNamespace == "" {
				return errors.New("--lease-namespace: say in which namespace the Lease is")
			}
			if o.NodeSelector, err = labels.Parse(nodes); err != nil {
				return fmt.Errorf("--node-selector %q: %w; give one such as pool=workers,zone!=a", nodes, err)
			}
			if o.Log, err = newLogger(cmd.ErrOrStderr(), format, level); err != nil {
				return err
			}
			if o.Config, err = kube.AgentConfig(kubeconfig); err != nil {
				return err
			}
			defer heedNoHangup(o.Log)()
			return controller.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.Network, "network", false, "look after the blocks of nodes, as where agents run with --network")
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "file that says how the API server is reached (default: as the pod that it runs in)")
	cmd.Flags().StringVar(&o.LeaseNamespace, "lease-namespace", os.Getenv(namespaceVariable), "namespace of the Lease (environment: "+namespaceVariable+")")
	cmd.Flags().StringVar(&nodes, "node-selector", "", "label selector, as of kubectl, of the nodes that have an agent (default: all that run Linux)")
	cmd.Flags().StringVar(&o.MetricsAddress, "metrics-address", "127.0.0.1:9471", "host:port for /healthz, /readyz and /metrics; empty for none")
	logFlags(cmd, &format, &level)
	must(cmd.MarkFlagFilename("kubeconfig"))
	return cmd
}
