package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/cni"
)

func runCommand(g *global) *cobra.Command {
	cfg := agent.Config{Version: buildVersion(), BeatEvery: g.pace.BeatEvery}
	var format, level, output string
	var dry bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent: keep this node's kernel equal to the pools and settings",
		Long: `Run the agent of this node. It watches the directory of manifests or, with --datastore kubernetes, the
API of a cluster; programs the kernel and repairs it, and answers on its socket. Stopping it leaves the rules
in place; "sallyport cleanup" removes them.

The node's name selects the NATConfigurations and the Node that are meant for it.

In a cluster the agent reaches the API server as the pod that it runs in, or by --kubeconfig. While it cannot, the
last good view stays in force, also after a restart.

With --dry-run it says what it would change in the kernel, and ends: with exit code 0 if there is nothing to
change, 2 if there is, and 1 after an error. An agent that runs is not disturbed.`,
		Example: "  sallyport run\n  sallyport run --dry-run --dir /tmp/new-manifests\n  sallyport run --datastore kubernetes --kubeconfig /etc/sallyport/kubeconfig --lease-namespace sallyport-system",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			if output != "" && !dry {
				return errors.New("--output: only --dry-run prints something")
			}
			log, err := newLogger(cmd.ErrOrStderr(), format, level)
			if err != nil {
				return err
			}
			if err := g.checkDatastore(); err != nil {
				return err
			}
			cfg.Dir, cfg.Socket, cfg.Log = g.dir, g.socket, log
			cfg.Datastore, cfg.Kubeconfig = agent.Datastore(g.datastore), g.kubeconfig
			if cfg.NodeName, err = nodeName(cfg.NodeName); err != nil {
				return err
			}
			if dry {
				return dryRun(cmd, g, cfg, output)
			}
			if cfg.Datastore == agent.Kubernetes && cfg.LeaseNamespace == "" {
				return errors.New("--lease-namespace: say in which namespace the Lease of this node is")
			}
			defer heedNoHangup(log)()
			return agent.Run(cmd.Context(), cfg)
		},
	}
	datastoreFlags(cmd, g)
	agentFlags(cmd, &cfg)
	logFlags(cmd, &format, &level)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would be changed in the kernel, and end")
	outputFlag(cmd, &output, "json")
	return cmd
}

// agentFlags are those that fill in the configuration of an agent.
func agentFlags(cmd *cobra.Command, cfg *agent.Config) {
	cmd.Flags().StringVar(&cfg.NodeName, "node-name", os.Getenv(nodeVariable), "name of this node (environment: "+nodeVariable+"; default: the host name)")
	cmd.Flags().StringVar(&cfg.LeaseNamespace, "lease-namespace", os.Getenv(namespaceVariable), "namespace of the Lease that says that this agent lives, with --datastore kubernetes (environment: "+namespaceVariable+")")
	cmd.Flags().StringVar(&cfg.StateDir, "state-dir", defaultStateDir, "directory for the last good state")
	cmd.Flags().StringVar(&cfg.PasswordDir, "password-dir", "/etc/sallyport/passwords", "directory with the passwords of BGP sessions, with --datastore directory")
	cmd.Flags().BoolVar(&cfg.Network, "network", false, "be the pod network: give pods their addresses and links, by the CNI plugin sallyport-cni, and make routes between nodes")
	cmd.Flags().StringVar(&cfg.CNISocket, "cni-socket", cni.Socket, "path of the socket for the CNI plugin, with --network")
	cmd.Flags().StringVar(&cfg.MetricsAddress, "metrics-address", "127.0.0.1:9470", "host:port for /healthz, /readyz and /metrics; empty for none")
	must(cmd.MarkFlagDirname("state-dir"))
	must(cmd.MarkFlagDirname("password-dir"))
}

// heedNoHangup says on SIGHUP, with which an operator asks a service to reload, that there is nothing to do. By default
// the signal would end the process without a word. It returns what ends that.
func heedNoHangup(log *slog.Logger) (stop func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-signals:
				log.Info("SIGHUP changes nothing: what is declared is watched, so that there is nothing to reload")
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(signals); close(done) }
}

// logFlags adds the flags for the log of a program that goes on.
func logFlags(cmd *cobra.Command, format, level *string) {
	cmd.Flags().StringVar(format, "log-format", "text", "text or json")
	cmd.Flags().StringVar(level, "log-level", "info", "debug, info, warn or error")
	must(cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp)))
}

// nodeVariable holds the name of this node, where a pod's manifest puts it.
const nodeVariable = "NODE_NAME"

// nodeName is the name given, or else the host's, as Kubernetes names nodes: in lower case.
func nodeName(given string) (string, error) {
	if given != "" {
		if len(validation.IsDNS1123Subdomain(given)) > 0 {
			return "", fmt.Errorf("--node-name %q: no node can have this name: give at most 253 lower case letters, digits, \"-\" and \".\", with a letter or digit at both ends", given)
		}
		return given, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("asking for the host name (give --node-name instead): %w", err)
	}
	return strings.ToLower(host), nil
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level: %q is not known: give debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, fmt.Errorf("--log-format: %q is neither text nor json", format)
	}
}
