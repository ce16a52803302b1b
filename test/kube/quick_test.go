package kube

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/cli"
	controllers "github.com/sallyport/sallyport/internal/controller"
	"github.com/sallyport/sallyport/internal/datastore/kube"
)

// quickEnv makes the program's agent beat, and its controller call nodes unknown, in seconds instead of minutes.
const quickEnv = "SALLYPORT_KUBE_QUICK"

// The times of quick programs.
const (
	quickBeat    = time.Second
	quickUnknown = 6 * time.Second
)

// becomeProgram is the program, as its command line and environment say, and returns its exit code.
func becomeProgram() int {
	for i, arg := range os.Args {
		if os.Getenv(quickEnv) == "" || arg != "run" && arg != "controller" {
			continue
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := quickly(ctx, arg == "run", slices.Concat(os.Args[1:i], os.Args[i+1:])); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	return cli.Main()
}

// quickly runs an agent or a controller with the flags that these tests use.
func quickly(ctx context.Context, asAgent bool, args []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg := agent.Config{Datastore: agent.Kubernetes, LeaseNamespace: os.Getenv("POD_NAMESPACE"), BeatEvery: quickBeat, Version: "test", Log: log}
	f := flag.NewFlagSet("quickly", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&cfg.Socket, "socket", "", "")
	f.StringVar(&cfg.NodeName, "node-name", "", "")
	f.StringVar(&cfg.StateDir, "state-dir", "", "")
	f.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "")
	f.StringVar(&cfg.MetricsAddress, "metrics-address", "", "")
	f.StringVar(&cfg.LeaseNamespace, "lease-namespace", cfg.LeaseNamespace, "")
	f.String("datastore", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if asAgent {
		return agent.Run(ctx, cfg)
	}
	to, err := kube.AgentConfig(cfg.Kubeconfig)
	if err != nil {
		return err
	}
	return controllers.Run(ctx, controllers.Options{Config: to, LeaseNamespace: cfg.LeaseNamespace, MetricsAddress: cfg.MetricsAddress,
		NodeSelector: labels.Everything(), UnknownAfter: quickUnknown, Version: "test", Log: log})
}
