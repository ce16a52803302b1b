package nodes

import (
	"os"
	"testing"

	"github.com/sallyport/sallyport/test/kube/cluster"
)

// Main is the TestMain of a package whose tests need nodes: cluster.Main, after a check that their programs are there.
func Main(m *testing.M) { os.Exit(cluster.Run(m, cluster.NodePrograms()...)) }
