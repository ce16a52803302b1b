package main

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestPush pushes to a registry that can list referrers, and to one that cannot, where a tag lists them.
func TestPush(t *testing.T) {
	t.Parallel()
	bin, _ := built(t)
	for _, lists := range []bool{true, false} {
		server := httptest.NewServer(registry.New(registry.WithReferrersSupport(lists), registry.Logger(log.New(io.Discard, "", 0))))
		defer server.Close()
		tag, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/some/where:v1")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time changes nothing
			if err := run(t.Context(), []string{"push", "-layout", filepath.Join(bin, "image"), tag.String()}, io.Discard); err != nil {
				t.Fatal(err)
			}
		}
		index, err := remote.Index(tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil {
			t.Errorf("what was pushed is not valid: %v", err)
		}
		for arch, img := range images(t, index) {
			digest, err := img.Digest()
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(bin, "sallyport-image-"+arch+".spdx.json"))
			if err != nil {
				t.Fatal(err)
			}
			if got := pulledSBOM(t, tag.Context().Digest(digest.String())); !bytes.Equal(got, want) {
				t.Errorf("referrers %v, %s: the registry's SBOM is not the one beside the image:\n%s", lists, arch, got)
			}
		}
	}
}

// pulledSBOM is the one document that refers to an image.
func pulledSBOM(t *testing.T, subject name.Digest) []byte {
	t.Helper()
	index, err := remote.Referrers(subject)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Manifests) != 1 {
		t.Fatalf("%s has the referrers %+v", subject, list.Manifests)
	}
	artifact, err := remote.Image(subject.Context().Digest(list.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	// Asked in the manifest, because this registry's list says the configuration's type in its place.
	if m, err := artifact.Manifest(); err != nil || m.ArtifactType != "application/spdx+json" || m.Subject.Digest.String() != subject.DigestStr() {
		t.Errorf("%s has the referrer %+v, %v", subject, m, err)
	}
	layers, err := artifact.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("the artifact holds %v, %v", layers, err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
