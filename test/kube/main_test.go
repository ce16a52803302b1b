package kube

import (
	"testing"

	"github.com/sallyport/sallyport/test/kube/cluster"
)

func TestMain(m *testing.M) { cluster.Main(m) }
