// Package cniinstall puts the CNI plugin and its network configuration where a container runtime looks for them, keeps them
// there, and removes them. It owns two files by their names, and no other: configurations of other networks stay as they are.
package cniinstall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
)

// The names of the files, in the directory of plugins and in that of network configurations.
const (
	PluginFile = "sallyport-cni"
	ListFile   = "10-sallyport.conflist"
)

// mark is what the Go linker writes into each version of the plugin, and by which one is told from a program of others.
const mark = "path\tgithub.com/sallyport/sallyport/cmd/sallyport-cni\n"

// Files says what is installed where. Every field is required, but Plugin for Uninstall.
type Files struct {
	Plugin  string // the path of the plugin to install
	BinDir  string // where the runtime looks for plugins
	ConfDir string // where it looks for network configurations
	Log     *slog.Logger
}

// Install makes both files equal to what they must be, the plugin first, and says which it has written. A reader sees the old
// file or the new one, also after a crash.
func (f Files) Install(ctx context.Context) (written []string, err error) {
	plugin, err := os.ReadFile(f.Plugin)
	if err != nil {
		return nil, fmt.Errorf("reading the CNI plugin: %w", err)
	}
	if !bytes.Contains(plugin, []byte(mark)) {
		return nil, fmt.Errorf("%s is not Sallyport's CNI plugin: give its path with --plugin", f.Plugin)
	}
	path := filepath.Join(f.BinDir, PluginFile)
	wrote, err := put(path, plugin, 0o755)
	if err != nil {
		return nil, fmt.Errorf("installing the CNI plugin: %w", err)
	}
	if wrote {
		written = append(written, path)
	}
	path = filepath.Join(f.ConfDir, ListFile)
	wrote, err = put(path, render(f.chained(ctx)), 0o644)
	if err != nil {
		return written, fmt.Errorf("installing the network configuration: %w", err)
	}
	if wrote {
		written = append(written, path)
	}
	return written, nil
}

// preferred are the network configurations that a runtime prefers to ours, since their names come first.
func (f Files) preferred() []string {
	entries, err := os.ReadDir(f.ConfDir)
	if err != nil {
		return nil // Install says why it cannot be used
	}
	var names []string
	for _, e := range entries {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) && e.Name() < ListFile {
			names = append(names, e.Name())
		}
	}
	return names
}

// Uninstall removes both files, the network configuration first, so that a runtime starts no pod in between. It leaves a file
// that is not Sallyport's, which is an error, and says which it has removed.
func (f Files) Uninstall() (removed []string, err error) {
	for _, file := range []struct {
		path string
		ours func([]byte) bool
	}{
		{filepath.Join(f.ConfDir, ListFile), isOurList},
		{filepath.Join(f.BinDir, PluginFile), func(b []byte) bool { return bytes.Contains(b, []byte(mark)) }},
	} {
		gone, failed := remove(file.path, file.ours)
		if gone {
			removed = append(removed, file.path)
		}
		err = errors.Join(err, failed)
	}
	return removed, err
}

// remove removes a file that is ours, and says whether it did.
func remove(path string, ours func([]byte) bool) (bool, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && !ours(content) {
		return false, fmt.Errorf("%s is not Sallyport's and is left: remove it by hand if nothing needs it", path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return false, fmt.Errorf("removing a file of the CNI plugin: %w", err)
	}
	return true, nil
}

// put makes a file hold some bytes with some mode, and says whether it had to. What stands in its place, such as a symbolic
// link, is replaced.
func put(path string, content []byte, mode fs.FileMode) (wrote bool, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	if st, err := os.Lstat(path); err == nil && st.Mode() == mode {
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			return false, nil
		}
	}
	// The name is always the same, so that crashes leave no more than one; a runtime does not read it.
	aside := filepath.Join(dir, "."+filepath.Base(path)+".tmp")
	err = writeSynced(aside, content, mode)
	if err == nil { // a disk that is full must not replace what works with a part of the new
		err = os.Rename(aside, path)
	}
	if err != nil {
		_ = os.Remove(aside) // the error that is returned says more
		return false, err
	}
	return true, syncDir(dir)
}

// writeSynced writes a file and waits until the disk has it.
func writeSynced(path string, content []byte, mode fs.FileMode) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()) // Chmod: whatever the umask is
}

// syncDir waits until the disk has the names of a directory.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
