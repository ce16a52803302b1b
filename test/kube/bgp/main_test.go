package bgp

import (
	"os"
	"testing"

	"github.com/sallyport/sallyport/internal/cli"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// programEnv makes this test binary be the program itself.
const programEnv = "SALLYPORT_BGP_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		os.Exit(cli.Main())
	}
	cluster.Main(m)
}
