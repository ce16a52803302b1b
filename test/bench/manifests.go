package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// pools are manifests in a directory, of which the first pool can be switched.
type pools struct {
	dir, state string
	flip       func(natOutgoing bool) error
}

// filesOf writes each pool into a file of its own.
func filesOf(tmp string, count int) (*pools, error) {
	dir, state, err := manifests(tmp, count)
	return &pools{dir, state, func(nat bool) error { return writePool(dir, 0, nat) }}, err
}

// oneFileOf writes all pools into one file.
func oneFileOf(tmp string, count int) (*pools, error) {
	dir, state, err := emptyNode(tmp)
	if err != nil {
		return nil, err
	}
	var rest strings.Builder
	for i := 1; i < count; i++ {
		rest.WriteString("---\n" + manifestText(i, nth(i).String(), "natOutgoing: true"))
	}
	flip := func(nat bool) error {
		first := manifestText(0, podRange.String(), fmt.Sprintf("natOutgoing: %t", nat))
		return writeAside(dir, "pools", first+rest.String())
	}
	return &pools{dir, state, flip}, flip(true)
}

func writePool(dir string, i int, natOutgoing bool) error {
	cidr := nth(i)
	if i == 0 {
		cidr = podRange
	}
	return writeManifest(dir, i, cidr.String(), fmt.Sprintf("natOutgoing: %t", natOutgoing))
}

func writeManifest(dir string, i int, cidr, spec string) error {
	return writeAside(dir, fmt.Sprintf("pool-%05d", i), manifestText(i, cidr, spec))
}

func manifestText(i int, cidr, spec string) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: pool-%05d\nspec:\n  cidr: %s\n  %s\n", i, cidr, spec)
}

// writeAside writes a file as careful tools do: aside first, then by rename.
func writeAside(dir, name, text string) error {
	aside := filepath.Join(dir, "."+name)
	if err := os.WriteFile(aside, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(aside, filepath.Join(dir, name+".yaml"))
}
