package main

import (
	"bytes"
	"encoding/json"
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// blob is content of a layout, and what others say of it when they refer to it.
type blob struct {
	v1.Descriptor

	content []byte
}

func newBlob(kind types.MediaType, content []byte) (blob, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(content))
	return blob{v1.Descriptor{MediaType: kind, Digest: digest, Size: size}, content}, err
}

func newJSON(kind types.MediaType, value any) (blob, error) {
	content, err := json.Marshal(value)
	if err != nil {
		return blob{}, err
	}
	return newBlob(kind, content)
}

// path is where the blob is in a layout.
func (b blob) path() string { return "blobs/" + b.Digest.Algorithm + "/" + b.Digest.Hex }

// files are the content of a directory or an archive, by path.
type files map[string][]byte

// layout lists the files of an OCI layout. Its index refers to the manifests; blobs are all that it holds.
// https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
func layout(manifests []v1.Descriptor, blobs ...blob) (files, error) {
	index, err := json.MarshalIndent(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: manifests}, "", "  ")
	if err != nil {
		return nil, err
	}
	f := files{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": append(index, '\n')}
	for _, b := range blobs {
		f[b.path()] = b.content
	}
	return f, nil
}

// with returns the descriptor with annotations.
func with(d v1.Descriptor, annotations map[string]string) v1.Descriptor {
	d.Annotations = maps.Clone(annotations)
	return d
}
