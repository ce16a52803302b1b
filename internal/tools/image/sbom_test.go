package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSBOM compares the documents with what `go version -m` says of the binaries.
func TestSBOM(t *testing.T) {
	t.Parallel()
	bin, _ := built(t)
	for arch, img := range images(t, indexOf(t, filepath.Join(bin, "image"))) {
		text, err := os.ReadFile(filepath.Join(bin, "sallyport-image-"+arch+".spdx.json"))
		if err != nil {
			t.Fatal(err)
		}
		var d document
		if err := json.Unmarshal(text, &d); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(bin, "linux-"+arch, "sallyport")
		binary, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := newBlob("", binary)
		if err != nil {
			t.Fatal(err)
		}
		version := config(t, img).Config.Labels["org.opencontainers.image.version"]
		if main := d.Packages[0]; main.Name != "sallyport" || main.Version != version || main.Checksums[0].Value != b.Digest.Hex {
			t.Errorf("%s: the first package is %+v, want sallyport %s %s", arch, main, version, b.Digest.Hex)
		}
		if created := config(t, img).Created.Format("2006-01-02T15:04:05Z"); d.CreationInfo.Created != created {
			t.Errorf("%s: the document is of %s, the image of %s", arch, d.CreationInfo.Created, created)
		}
		got := []string{}
		ids := map[string]bool{}
		for _, p := range d.Packages {
			got = append(got, p.Name+" "+p.Version)
			ids[p.SPDXID] = true
			if !regexp.MustCompile(`^SPDXRef-[a-zA-Z0-9.-]+$`).MatchString(p.SPDXID) {
				t.Errorf("%s: the identifier of %s is %q", arch, p.Name, p.SPDXID)
			}
		}
		want := modules(t, path)
		if len(want) < 20 || !slices.Equal(got[1:], want) {
			t.Errorf("%s: lists %q, want %q", arch, got[1:], want)
		}
		if len(ids) != len(got) || len(d.Relationships) != len(got) {
			t.Errorf("%s: %d packages have %d identifiers and %d relationships", arch, len(got), len(ids), len(d.Relationships))
		}
	}
}

// modules are the standard library and the modules in a binary, with their versions.
func modules(t *testing.T, path string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "version", "-m", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	all := []string{"stdlib " + strings.TrimPrefix(strings.Fields(lines[0])[1], "go")}
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "dep" {
			all = append(all, f[1]+" "+f[2])
		}
	}
	return all
}

func TestPURL(t *testing.T) {
	t.Parallel()
	if got, want := purl("github.com/Foo/bar/v2", "v2.0.0+incompatible"), "pkg:golang/github.com/foo/bar/v2@v2.0.0%2Bincompatible"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
