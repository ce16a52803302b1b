// Package cniexec runs CNI plugins in a host of a lab.
package cniexec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/sallyport/sallyport/internal/lab"
)

// Exec runs plugins on a node, as a runtime does: it hands the environment and the configuration over, and reads the result.
type Exec struct {
	version.PluginDecoder

	Node *lab.Host
	// Killed is asked for each start how soon the plugin is killed; 0: never. Nil: none is.
	Killed func() time.Duration
}

// ExecPlugin runs a plugin.
func (e *Exec) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	cmd := e.Node.Command(ctx, path)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = bytes.NewReader(stdin), &out, &said, append(env, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if err := e.Node.Start(cmd); err != nil {
		return nil, err
	}
	if e.Killed != nil {
		if d := e.Killed(); d > 0 {
			defer time.AfterFunc(d, func() { _ = cmd.Process.Kill() }).Stop()
		}
	}
	err := cmd.Wait()
	if err == nil {
		return out.Bytes(), nil
	}
	fault := &types.Error{}
	if json.Unmarshal(out.Bytes(), fault) != nil || fault.Msg == "" {
		fault.Msg = fmt.Sprintf("%s failed: %v: %s%s", filepath.Base(path), err, &out, &said)
	}
	return nil, fault
}

// FindInPath finds a plugin.
func (e *Exec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}
