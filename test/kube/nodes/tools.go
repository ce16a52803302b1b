package nodes

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// busybox is the tool that is many others as well: those of its names that no other tool has are links to it. Its shell
// takes itself for all of them, so that sh is another one; its wget, which is linked statically, crashes.
const (
	busybox = "busybox"
	shell   = "bash"
)

// addTools adds programs of this machine with the libraries that they load.
func addTools(w *tar.Writer, tools []string) error {
	libraries := map[string]bool{}
	for _, tool := range tools {
		path, err := findTool(tool)
		if err != nil {
			return err
		}
		loads, err := librariesOf(path)
		if err != nil {
			return err
		}
		for _, library := range loads {
			if !libraries[library] {
				libraries[library] = true
				err = errors.Join(err, copyFile(w, strings.TrimPrefix(library, "/"), library))
			}
		}
		if err := errors.Join(err, copyFile(w, "bin/"+tool, path)); err != nil {
			return err
		}
	}
	if slices.Contains(tools, busybox) {
		return addApplets(w, tools)
	}
	return nil
}

// addApplets adds the names of busybox.
func addApplets(w *tar.Writer, but []string) error {
	path, err := findTool(busybox)
	if err != nil {
		return err
	}
	names, err := exec.CommandContext(context.Background(), path, "--list").Output()
	if err != nil {
		return fmt.Errorf("%s --list: %w", path, err)
	}
	for _, name := range strings.Fields(string(names)) {
		to := busybox
		if name == "sh" {
			to = shell
		}
		if slices.Contains(but, name) {
			continue
		}
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: to}); err != nil {
			return err
		}
	}
	return nil
}

// findTool looks for a program where Debian keeps those of users and of root.
func findTool(name string) (string, error) {
	for _, dir := range []string{"/usr/bin", "/usr/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("this machine has no %[1]s: run hack/install-deps %[1]s", name)
}

// librariesOf are the paths of the libraries that a program loads, its loader among them. A static one has none.
func librariesOf(program string) ([]string, error) {
	out, err := exec.CommandContext(context.Background(), "ldd", program).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "not a dynamic executable") {
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, out)
	}
	var paths []string
	for _, word := range strings.Fields(string(out)) {
		if filepath.IsAbs(word) && !strings.HasSuffix(word, ":") {
			paths = append(paths, word)
		}
	}
	return paths, nil
}
