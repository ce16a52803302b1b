package kube

import (
	"fmt"
	"os"
	"testing"

	"github.com/sallyport/sallyport/test/kube/cluster"
)

// programEnv makes this test binary be the program itself, so that the agent under test is built as the tests are:
// with the race detector, where they are run with it.
const programEnv = "SALLYPORT_KUBE_PROGRAM"

func TestMain(m *testing.M) {
	if spec := os.Getenv(containerEnv); spec != "" {
		fmt.Fprintln(os.Stderr, becomeContainer(spec))
		os.Exit(1)
	}
	if os.Getenv(programEnv) != "" {
		os.Exit(becomeProgram())
	}
	cluster.Main(m)
}
