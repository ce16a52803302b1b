// Testreport turns the output of `go test -json` on standard input into what one wants to read: failures,
// a line for each package, and the tests that were skipped with their reasons.
//
// It exits with 1 if a test failed, if none ran, or if one was skipped although the kernel has what it
// needs: a test that silently did not run must not look like one that passed.
package main

import (
	"fmt"
	"os"
)

func main() {
	r := newReport(os.Stdout)
	err := r.read(os.Stdin)
	if err == nil {
		err = r.finish()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
}
