package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// binariesEnv names the directory of the programs; it is the variable that controller-runtime's envtest reads.
const binariesEnv = "KUBEBUILDER_ASSETS"

// The programs of a control plane, as hack/kube-binaries names them. It builds the scheduler for nodes alone: without
// them there is nothing to schedule.
const (
	etcdProgram              = "etcd"
	apiServerProgram         = "kube-apiserver"
	controllerManagerProgram = "kube-controller-manager"
	schedulerProgram         = "kube-scheduler"
	kubectlProgram           = "kubectl"
)

// NodePrograms are what "hack/kube-binaries --nodes" builds beside the control plane.
func NodePrograms() []string {
	return []string{schedulerProgram, "kubelet", "kube-proxy", "agnhost", "coredns", "pause"}
}

// Main is the TestMain of a package whose tests need a control plane: labtest.Main, after a check that its programs
// are there. Where they are missing the run fails, and says how to build them.
func Main(m *testing.M) { os.Exit(Run(m)) }

// parallel is how many tests run at once unless the command line says otherwise: they wait far more than they compute,
// and each has a control plane of some 400 MB.
const parallel = "4"

// Run is Main for a TestMain that has something to do before or after: see labtest.Run. The tests may need programs
// beside those of the control plane.
func Run(m *testing.M, programs ...string) int {
	if err := flag.Set("test.parallel", parallel); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	listing := slices.ContainsFunc(os.Args[1:], func(a string) bool { return strings.HasPrefix(a, "-test.list=") })
	if err := FindBinaries(programs...); err != nil && !listing {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return labtest.Run(m)
}

// FindBinaries makes sure that the variable names a directory that holds the programs of a control plane and some more;
// where it is not set, that is the cache of hack/kube-binaries.
func FindBinaries(more ...string) error {
	dir := os.Getenv(binariesEnv)
	if dir == "" {
		var err error
		if dir, err = cached(); err != nil {
			return err
		}
		if err := os.Setenv(binariesEnv, dir); err != nil {
			return err
		}
	}
	script := "hack/kube-binaries"
	if len(more) > 0 {
		script += " --nodes"
	}
	for _, name := range append([]string{etcdProgram, apiServerProgram, controllerManagerProgram, kubectlProgram}, more...) {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("these tests run a real Kubernetes, and %s has no %s (%w): "+
				"run %s, and set %s to the directory that it prints, or to nothing", dir, name, err, script, binariesEnv)
		}
	}
	return nil
}

// cached asks hack/kube-binaries where it keeps the programs.
func cached() (string, error) {
	script := filepath.Join("hack", "kube-binaries")
	for ; ; script = filepath.Join("..", script) {
		if _, err := os.Stat(script); err == nil {
			break
		}
		if at, err := filepath.Abs(script); err != nil || filepath.Dir(filepath.Dir(at)) == "/" {
			return "", errors.New("hack/kube-binaries is in no directory above this one: set " + binariesEnv)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, "--find")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("these tests run a real Kubernetes control plane: %s (%w)", strings.TrimSpace(stderr.String()), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Programs is the directory of the programs.
func Programs() string { return os.Getenv(binariesEnv) }

// program is the path of one of the programs.
func program(name string) string { return filepath.Join(Programs(), name) }
