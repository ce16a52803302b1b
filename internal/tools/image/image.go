package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	title   = "sallyport"
	source  = "https://github.com/sallyport/sallyport"
	license = "Apache-2.0"

	// plugin is the CNI plugin, which is beside the program that installs it, here and in the image.
	plugin = "sallyport-cni"

	// entrypoint is where the program is in the image.
	entrypoint = "/" + title
)

// part is what there is for one platform.
type part struct {
	platform v1.Platform
	// The image is the manifest, which names the configuration and the layer.
	manifest, config, layer blob
	// The referrer is a manifest that names the SBOM, and the image as its subject.
	referrer, sbom, empty blob
}

func newPart(r release, path string) (part, error) {
	b, err := readBinary(path)
	if err != nil {
		return part{}, err
	}
	beside := filepath.Join(filepath.Dir(path), plugin)
	cni, err := readBinary(beside)
	if err == nil && !cni.platform.Equals(b.platform) {
		err = fmt.Errorf("it is built for %s, and %s for %s", cni.platform, title, b.platform)
	}
	if err != nil {
		return part{}, fmt.Errorf("with its plugin %s: %w", beside, err)
	}
	p, programs := part{platform: b.platform}, []program{{title, b}, {plugin, cni}}
	if err := p.addImage(r, programs); err != nil {
		return part{}, err
	}
	return p, p.addSBOM(r, programs)
}

// addImage makes an image that holds the programs and nothing else.
func (p *part) addImage(r release, programs []program) error {
	content, err := layerOf(r, programs)
	if err != nil {
		return err
	}
	diffID, _, err := v1.SHA256(bytes.NewReader(content))
	if err != nil {
		return err
	}
	packed, err := compress(content)
	if err != nil {
		return err
	}
	if p.layer, err = newBlob(types.OCILayer, packed); err != nil {
		return err
	}
	if p.config, err = newJSON(types.OCIConfigJSON, configOf(r, p.platform, diffID)); err != nil {
		return err
	}
	p.manifest, err = newJSON(types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        p.config.Descriptor,
		Layers:        []v1.Descriptor{p.layer.Descriptor},
	})
	return err
}

// configOf says how the image runs: as root, which the agent has to be. A workload that need not be says so itself.
func configOf(r release, platform v1.Platform, diffID v1.Hash) v1.ConfigFile {
	created := v1.Time{Time: r.created}
	labels := map[string]string{
		"org.opencontainers.image.title":    title,
		"org.opencontainers.image.source":   source,
		"org.opencontainers.image.licenses": license,
		"org.opencontainers.image.version":  r.version,
	}
	if r.revision != "" {
		labels["org.opencontainers.image.revision"] = r.revision
	}
	return v1.ConfigFile{
		OS:           platform.OS,
		Architecture: platform.Architecture,
		Created:      created,
		History:      []v1.History{{Created: created, CreatedBy: "make image"}},
		RootFS:       v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
		Config:       v1.Config{Entrypoint: []string{entrypoint}, User: "0", WorkingDir: "/", Labels: labels},
	}
}

func layerOf(r release, programs []program) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, p := range programs {
		if err := addFile(w, r, p.name, 0o755, p.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// compress writes no time and no name into gzip's header.
func compress(content []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// addFile adds a file that belongs to root and is as old as the release.
func addFile(w *tar.Writer, r release, name string, mode int64, content []byte) error {
	err := w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: r.created, Format: tar.FormatUSTAR,
	})
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}
