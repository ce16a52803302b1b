package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Scratch is a directory in memory for a program that Isolate has started: it hides the machine's own
// temporary directory from that program, and vanishes with it, however it ends.
func Scratch() (string, error) {
	if !Isolated() {
		return "", fmt.Errorf("making a scratch directory: only a program that was started by Isolate may hide %s", os.TempDir())
	}
	dir := os.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return "", fmt.Errorf("making a scratch directory: mounting tmpfs on %s: %w", dir, permissionError(err))
	}
	return dir, nil
}
