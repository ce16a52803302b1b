package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// The user that may do everything.
const (
	adminUser  = "admin"
	adminGroup = "system:masters"
)

// makeClients makes what this process talks to the API server with.
func (c *Cluster) makeClients() error {
	keys, err := c.authority.client(adminUser, []string{adminGroup})
	if err != nil {
		return err
	}
	c.admin = c.config(keys)
	if c.client, err = rest.HTTPClientFor(c.admin); err != nil {
		return err
	}
	c.objects, err = dynamic.NewForConfigAndClient(c.admin, c.client)
	return err
}

// config is how this process talks to the API server with somebody's keys: without a limit on how often it asks.
func (c *Cluster) config(keys pair) *rest.Config {
	return &rest.Config{
		Host: apiServerURL,
		Dial: c.host.Dial,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: c.CA(), CertData: keys.cert, KeyData: keys.key,
		},
		QPS: -1,
	}
}

// Config lets the test's own code talk to the API server, as one who may do everything.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.admin) }

// CA is the certificate, in PEM, by which programs know the API server and the users whose certificates it takes.
func (c *Cluster) CA() []byte { return encodeCert(c.authority.cert.Raw) }

// ConfigOf is Config for a user who has the rights that the cluster's roles give.
func (c *Cluster) ConfigOf(t labtest.TB, user string, groups ...string) *rest.Config {
	t.Helper()
	keys, err := c.authority.client(user, groups)
	labtest.Must(t, err)
	return c.config(keys)
}

// Kubeconfig writes a file by which programs on connected hosts talk to the API server, as a user who has the rights
// that the cluster's roles give, and returns its path.
func (c *Cluster) Kubeconfig(t labtest.TB, user string, groups ...string) string {
	t.Helper()
	keys, err := c.authority.client(user, groups)
	labtest.Must(t, err)
	return c.writeKubeconfig(t, &clientcmdapi.AuthInfo{ClientCertificateData: keys.cert, ClientKeyData: keys.key})
}

func (c *Cluster) writeKubeconfig(t labtest.TB, user *clientcmdapi.AuthInfo) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{
		Server: "https://" + address.String() + ":" + apiServerPort, CertificateAuthorityData: c.CA(),
	}
	config.AuthInfos["user"] = user
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "user"}
	config.CurrentContext = "test"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	labtest.Must(t, clientcmd.WriteToFile(*config, path))
	return path
}

// kubectlAtMost is how long kubectl may take.
const kubectlAtMost = 3 * time.Minute

// Kubectl runs kubectl as one who may do everything, with the given standard input, and returns its standard output.
// What it says on standard error is in the error. It is killed when the test ends, or after kubectlAtMost.
func (c *Cluster) Kubectl(t labtest.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), kubectlAtMost)
	defer cancel()
	cmd := c.host.Command(ctx, program(kubectlProgram),
		append([]string{"--kubeconfig=" + c.adminFile, "--server=" + apiServerURL, "--cache-dir=" + c.file("kubectl")}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+c.dir)
	var out, complaint strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &complaint
	if err := c.host.Start(cmd); err != nil {
		return "", err
	}
	if err := errors.Join(cmd.Wait(), ctx.Err()); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return out.String(), nil
}

// Shell is a script for bash, that StartShell runs beside the API server in a directory: as one who may do everything,
// with kubectl and the programs of further directories first in its PATH. It is killed when the context ends.
func (c *Cluster) Shell(ctx context.Context, dir, script string, programs ...string) *exec.Cmd {
	cmd := c.host.Command(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	path := append(append([]string{}, programs...), filepath.Dir(program(kubectlProgram)), os.Getenv("PATH"))
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "KUBECONFIG="+c.adminFile, "PATH="+strings.Join(path, string(filepath.ListSeparator)))
	return cmd
}

// StartShell starts what Shell has made. The caller waits for it.
func (c *Cluster) StartShell(cmd *exec.Cmd) error { return c.host.Start(cmd) }
