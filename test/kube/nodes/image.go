package nodes

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// Image is a container image of programs, in an otherwise empty root.
type Image struct {
	Name     string   // with registry and tag, as Pods name it
	Aliases  []string // further names of that kind
	Programs []string // paths of files here, such as static programs; in the image they are in /
	Tools    []string // names of programs of this machine; in the image they are in /bin, with their libraries
	Command  []string // what a container runs unless its Pod says otherwise
}

// The images that every node has.
const (
	AgnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.53"
	CoreDNSImage = "registry.k8s.io/coredns/coredns:v1.15.0"
	pauseImage   = "registry.k8s.io/pause:3.10"
)

// ownImages are the images of programs that hack/kube-binaries has built.
func ownImages(programs string) []Image {
	image := func(name, program string, args ...string) Image {
		return Image{Name: name, Programs: []string{filepath.Join(programs, program)}, Command: append([]string{"/" + program}, args...)}
	}
	return []Image{image(pauseImage, "pause"), image(AgnhostImage, "agnhost", "pause"), image(CoreDNSImage, "coredns")}
}

// writeImages writes images into an archive as "docker save" does, which containerd imports.
func writeImages(path string, images []Image) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	archive := tar.NewWriter(f)
	var manifest []map[string]any
	for i, image := range images {
		layer, err := layerOf(image)
		if err != nil {
			return fmt.Errorf("making the image %s: %w", image.Name, err)
		}
		config, err := json.Marshal(map[string]any{
			"architecture": runtime.GOARCH, "os": "linux",
			"config": map[string]any{"Entrypoint": image.Command[:1], "Cmd": image.Command[1:], "Env": []string{"PATH=/:/bin"}},
			"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
		})
		if err != nil {
			return err
		}
		names := [2]string{fmt.Sprintf("%d.json", i), fmt.Sprintf("%d.tar", i)}
		if err := errors.Join(addFile(archive, names[0], 0o644, config), addFile(archive, names[1], 0o644, layer)); err != nil {
			return err
		}
		manifest = append(manifest, map[string]any{"Config": names[0], "RepoTags": append([]string{image.Name}, image.Aliases...), "Layers": names[1:]})
	}
	index, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	return errors.Join(addFile(archive, "manifest.json", 0o644, index), archive.Close())
}

// layerOf is the file system of an image: the programs, and what they take for granted.
func layerOf(image Image) ([]byte, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := w.WriteHeader(&tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777})
	for _, program := range image.Programs {
		err = errors.Join(err, copyFile(w, filepath.Base(program), program))
	}
	err = errors.Join(err, addTools(w, image.Tools), w.Close())
	return layer.Bytes(), err
}

// copyFile adds a program of this machine, or a library.
func copyFile(w *tar.Writer, name, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return addFile(w, name, 0o755, content)
}

func addFile(w *tar.Writer, name string, mode int64, content []byte) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
