package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// write writes the layout of all platforms into dir, and the files of each beside it.
func write(dir, prefix string, r release, parts []part, out io.Writer) error {
	whole, digest, err := layoutOf(r, parts)
	if err != nil {
		return err
	}
	if err := clearLayout(dir); err != nil {
		return err
	}
	if err := whole.writeTo(dir); err != nil {
		return err
	}
	parent, base := filepath.Split(prefix)
	for _, p := range parts {
		archive, err := archiveOf(r, p)
		if err != nil {
			return fmt.Errorf("making the archive for %s: %w", p.platform, err)
		}
		arch := p.platform.Architecture
		beside := files{base + arch + ".tar": archive, base + arch + ".spdx.json": p.sbom.content}
		if err := beside.writeTo(parent); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s %s, %.1f MB\n", p.platform, p.manifest.Digest, float64(p.layer.Size)/1e6)
	}
	fmt.Fprintf(out, "%s %s in %s\n", r.tag, digest, dir)
	return nil
}

// layoutOf makes the layout: one index with every platform's image, and what refers to these.
func layoutOf(r release, parts []part) (files, v1.Hash, error) {
	var images, referrers []v1.Descriptor
	var blobs []blob
	seen := map[string]bool{}
	for _, p := range parts {
		if seen[p.platform.String()] {
			return nil, v1.Hash{}, fmt.Errorf("there are two binaries for %s", p.platform)
		}
		seen[p.platform.String()] = true
		images = append(images, p.describe())
		referrers = append(referrers, p.referrer.Descriptor)
		blobs = append(blobs, p.manifest, p.config, p.layer, p.referrer, p.sbom, p.empty)
	}
	index, err := newJSON(types.OCIImageIndex, v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: images})
	if err != nil {
		return nil, v1.Hash{}, err
	}
	top := append([]v1.Descriptor{with(index.Descriptor, names(r))}, referrers...)
	f, err := layout(top, append(blobs, index)...)
	return f, index.Digest, err
}

// describe is what an index says of the image.
func (p part) describe() v1.Descriptor {
	d := p.manifest.Descriptor
	d.Platform = &v1.Platform{OS: p.platform.OS, Architecture: p.platform.Architecture}
	return d
}

// names are by what those who import a layout call it: containerd reads the first, others read the second.
func names(r release) map[string]string {
	return map[string]string{
		"io.containerd.image.name":          "docker.io/library/" + r.tag.String(),
		"org.opencontainers.image.ref.name": r.version,
	}
}

// archiveOf makes an archive that is an OCI layout, which containerd and later versions of Docker read, and has the
// manifest.json that Docker reads if it does not know layouts. Its blobs are the same, and so are the digests.
func archiveOf(r release, p part) ([]byte, error) {
	f, err := layout([]v1.Descriptor{with(p.describe(), names(r))}, p.manifest, p.config, p.layer)
	if err != nil {
		return nil, err
	}
	type image struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	f["manifest.json"], err = json.Marshal([]image{{p.config.path(), []string{r.tag.String()}, []string{p.layer.path()}}})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(f)) {
		if err := addFile(w, r, name, 0o644, f[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// clearLayout removes a layout that an earlier run wrote, and nothing else.
func clearLayout(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err != nil {
		return fmt.Errorf("%s is no OCI layout, and is left alone: name another directory", dir)
	}
	return os.RemoveAll(dir)
}

// writeTo writes the files into a directory, which it makes if it is not there.
func (f files) writeTo(dir string) error {
	for name, content := range f {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
