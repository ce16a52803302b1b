package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// emptyNode makes an empty directory for manifests, and one for the agent's state.
func emptyNode(tmp string) (dir, state string, err error) {
	root, err := os.MkdirTemp(tmp, "node-")
	if err != nil {
		return "", "", err
	}
	dir, state = filepath.Join(root, "resources"), filepath.Join(root, "state")
	return dir, state, errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(state, 0o755))
}

// manifests makes a directory with that many pools, a file each, and an empty state directory. The
// first is the pod's.
func manifests(tmp string, pools int) (dir, state string, err error) {
	if dir, state, err = emptyNode(tmp); err != nil {
		return "", "", err
	}
	for i := range pools {
		if err := writePool(dir, i, true); err != nil {
			return "", "", err
		}
	}
	return dir, state, nil
}

func writePool(dir string, i int, natOutgoing bool) error {
	cidr := nth(i)
	if i == 0 {
		cidr = podRange
	}
	return writeManifest(dir, i, cidr.String(), fmt.Sprintf("natOutgoing: %t", natOutgoing))
}

// writeManifest writes a pool's manifest as careful tools do: aside first, then by rename.
func writeManifest(dir string, i int, cidr, spec string) error {
	text := fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: pool-%05d\nspec:\n  cidr: %s\n  %s\n", i, cidr, spec)
	aside, final := filepath.Join(dir, fmt.Sprintf(".pool-%05d", i)), filepath.Join(dir, fmt.Sprintf("pool-%05d.yaml", i))
	if err := os.WriteFile(aside, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(aside, final)
}
