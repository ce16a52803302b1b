// Package cli is the command line of Sallyport, one file a command. A command reads its flags, calls the
// package that does the work, and prints; it decides nothing else.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
)

// Where things are unless a flag says otherwise.
const (
	defaultDir      = "/etc/sallyport/resources"
	defaultSocket   = "/run/sallyport/agent.sock"
	defaultStateDir = "/var/lib/sallyport"
	dirVariable     = "SALLYPORT_DIR"
)

// longestSocket is the length of sun_path without the 0 at its end (unix(7)).
const longestSocket = 107

// version is set when a release is built.
var version string

// The exit codes; internal/tools/clidoc has the table of what they mean to each command.
const (
	exitDone        = 0
	exitFailed      = 1
	exitDiffers     = 2
	exitUnconfirmed = 3
)

// errSilent ends a command with exitFailed when everything was said already.
var errSilent = errors.New("")

// errDiffers ends a command with exitDiffers: a dry run has found something to change, or verify an address that is not kept.
var errDiffers = errors.New("there is something to change")

// unconfirmedError ends a command with exitUnconfirmed: nothing was refused, and nothing has confirmed how the node stands, or
// what verify was to find out.
type unconfirmedError struct{ error }

// Pace is how soon a cluster hears of a node that is lost. The zero value is the program's; tests have no minutes.
type Pace struct {
	BeatEvery    time.Duration // see agent.Config
	UnknownAfter time.Duration // see controller.Options
}

// Main runs the command line of this process and returns its exit code.
func Main() int { return MainAt(Pace{}) }

// MainAt is Main at another pace.
func MainAt(p Pace) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends what does not heed the first
	return execute(ctx, rootCommand(&global{pace: p}))
}

// execute runs a command line, prints its error and returns the exit code.
func execute(ctx context.Context, root *cobra.Command) int {
	root.SetErr(safeWriter{root.ErrOrStderr()})
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	if errors.Is(err, errDiffers) {
		return exitDiffers
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintln(root.ErrOrStderr(), "sallyport: "+err.Error())
	}
	if _, ok := err.(unconfirmedError); ok { //nolint:errorlint // where it is joined with a refusal, the refusal counts
		return exitUnconfirmed
	}
	return exitFailed
}

// global are the flags that every command knows, and those of several.
type global struct {
	dir    string
	socket string

	datastore  string
	kubeconfig string

	pace Pace // not a flag
}

func (g *global) client() *agent.Client { return agent.NewClient(g.socket) }

// Root is the whole command tree.
func Root() *cobra.Command { return rootCommand(&global{}) }

func rootCommand(g *global) *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "Decide what the outgoing connections of pods look like from outside",
		Long: `Sallyport reads IP pools and programs the node that it runs on: a connection that a pod of a pool with
natOutgoing: true opens to an address outside every pool leaves with the node's address; every other one
keeps the pod's.

Begin with "sallyport demo", which shows it on this machine without touching it, and then "sallyport run".`,
		SilenceUsage:  true,
		SilenceErrors: true,
		// Cobra suggests the nearest command by itself; a bare call prints help.
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if len(g.socket) > longestSocket {
				return fmt.Errorf("--socket %s: has %d bytes, and the kernel takes at most %d for the path of a socket: give a shorter one", g.socket, len(g.socket), longestSocket)
			}
			return nil
		},
	}
	dir := os.Getenv(dirVariable)
	if dir == "" {
		dir = defaultDir
	}
	root.PersistentFlags().StringVar(&g.dir, "dir", dir, "directory of manifests (environment: "+dirVariable+")")
	root.PersistentFlags().StringVar(&g.socket, "socket", defaultSocket, "socket of the agent")
	must(root.MarkPersistentFlagDirname("dir"))
	root.AddCommand(
		runCommand(g), controllerCommand(g), applyCommand(g), getCommand(g), deleteCommand(g), validateCommand(g), convertCommand(), explainCommand(g),
		statusCommand(g), flowsCommand(g), verifyCommand(g), ipamCommand(g), bgpCommand(g), cleanupCommand(g), installCNICommand(), uninstallCNICommand(), demoCommand(), versionCommand(),
	)
	return root
}

// must reports a mistake in the command tree itself, which the tests see.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), buildVersion())
			return err
		},
	}
}

// buildVersion is the release, or what Go recorded of the build.
func buildVersion() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}
