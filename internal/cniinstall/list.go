package cniinstall

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// list is a network configuration list, https://github.com/containernetworking/cni/blob/main/SPEC.md section 1.
type list struct {
	// CNIVersion is the one of a runtime that does not know CNIVersions: containerd 1.6 cannot read 1.1.0.
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions"`
	Name        string   `json:"name"`
	Plugins     []plugin `json:"plugins"`
}

type plugin struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
}

// others are the plugins of the CNI project that come after ours where the node has them, and what a runtime hands to each:
// the hostPorts of a pod, and its annotations kubernetes.io/ingress-bandwidth and egress-bandwidth.
var others = []plugin{
	{"portmap", map[string]bool{"portMappings": true}},
	{"bandwidth", map[string]bool{"bandwidth": true}},
}

const (
	needed = "1.0.0" // of each plugin in the list
	newest = "1.1.0" // with STATUS and GC
	// asking is how long a plugin may take to say which versions it knows.
	asking = 5 * time.Second
)

// chained are the plugins that come after ours, and whether all of them know the newest version: a runtime calls all
// plugins of a list with one version.
func (f Files) chained(ctx context.Context) (found []plugin, all bool) {
	all = true
	for _, p := range others {
		path := filepath.Join(f.BinDir, p.Type)
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
			continue
		}
		versions, err := versionsOf(ctx, path)
		if err != nil {
			// One of Debian's needs libraries that are not in an image: the node can start it all the same.
			f.Log.Info("a CNI plugin does not say which versions it knows; it is taken to know "+needed+" alone", "plugin", path, "error", err)
			versions = []string{needed}
		}
		if !slices.Contains(versions, needed) {
			f.Log.Warn("a CNI plugin is too old and is left out of the network configuration: install the plugins of the CNI project in version 1.0 or later", "plugin", path, "knows", versions)
			continue
		}
		all = all && slices.Contains(versions, newest)
		found = append(found, p)
	}
	return found, all
}

// versionsOf asks a plugin which versions of CNI it knows.
func versionsOf(ctx context.Context, path string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = []string{"CNI_COMMAND=VERSION", "CNI_PATH=" + filepath.Dir(path)}
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var said struct {
		SupportedVersions []string `json:"supportedVersions"`
	}
	return said.SupportedVersions, json.Unmarshal(out, &said)
}

// render is the text of the network configuration.
func render(chained []plugin, all bool) []byte {
	l := list{CNIVersion: needed, CNIVersions: []string{"0.4.0", needed}, Name: "sallyport",
		Plugins: append([]plugin{{PluginFile, map[string]bool{"ips": true}}}, chained...)}
	if all {
		l.CNIVersions = append(l.CNIVersions, newest)
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		panic(err) // strings and booleans always have a JSON form
	}
	return append(b, '\n')
}

// isOurList says whether a network configuration is one of Sallyport's, of whichever version, and also if its text was edited.
func isOurList(content []byte) bool {
	var l list
	return json.Unmarshal(content, &l) == nil && len(l.Plugins) > 0 && l.Plugins[0].Type == PluginFile
}
