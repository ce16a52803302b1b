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
		version := config(t, img).Config.Labels["org.opencontainers.image.version"]
		var want []string
		relations := 0
		for _, name := range []string{"sallyport", "sallyport-cni"} {
			path := filepath.Join(bin, "linux-"+arch, name)
			binary, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b, err := newBlob("", binary)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(d.Packages, func(c component) bool { return c.Name == name })
			if i < 0 || d.Packages[i].Version != version || d.Packages[i].Checksums[0].Value != b.Digest.Hex {
				t.Errorf("%s: package %d of %+v, want %s %s %s", arch, i, d.Packages, name, version, b.Digest.Hex)
			}
			want = append(want, name+" "+version)
			found := modules(t, path)
			relations += 1 + len(found)
			for _, m := range found {
				if !slices.Contains(want, m) {
					want = append(want, m)
				}
			}
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
		if len(want) < 20 || !slices.Equal(got, want) {
			t.Errorf("%s: lists %q, want %q", arch, got, want)
		}
		if len(ids) != len(got) || len(d.Relationships) != relations {
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
