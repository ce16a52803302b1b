package kube

import (
	"os"
	"time"

	"github.com/sallyport/sallyport/internal/cli"
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
	if os.Getenv(quickEnv) == "" {
		return cli.Main()
	}
	return cli.MainAt(cli.Pace{BeatEvery: quickBeat, UnknownAfter: quickUnknown})
}
