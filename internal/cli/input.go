package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/manifest"
)

// readManifests reads what -f names, as long as the context lasts, and validates it unless v is nil.
func readManifests(ctx context.Context, cmd *cobra.Command, files []string, v manifest.Validator) (*manifest.Manifests, error) {
	var m *manifest.Manifests
	var failed error
	if err := reading(ctx, files, func() { m, failed = manifest.Read(files, cmd.InOrStdin(), v) }); err != nil {
		return nil, err
	}
	return m, failed
}

// reading calls read, which may wait for ever: for a FIFO that no process opens, or for a terminal. When the context ends
// first, that is an error, and read, of whose result nothing must be used then, goes on until the process ends.
func reading(ctx context.Context, files []string, read func()) error {
	done := make(chan struct{})
	go func() { defer close(done); read() }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	why := "the command was interrupted"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		why = "it did not end within --wait"
	}
	return fmt.Errorf("nothing was done: reading -f %s: %s", strings.Join(files, " -f "), why)
}
