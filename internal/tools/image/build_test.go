package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// built is the directory into which `make image` wrote, of the checkout in root.
func built(t *testing.T) (bin, root string) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if bin = os.Getenv("SALLYPORT_BIN"); bin == "" {
		bin = filepath.Join(root, "bin")
	}
	if _, err := os.Stat(filepath.Join(bin, "image/index.json")); err != nil {
		t.Fatalf("%v: run make image-test", err)
	}
	return bin, root
}

// indexOf reads the index of all platforms from a layout.
func indexOf(t *testing.T, dir string) v1.ImageIndex {
	t.Helper()
	top, err := ocilayout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	index, err := top.ImageIndex(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// images are those of an index, by architecture.
func images(t *testing.T, index v1.ImageIndex) map[string]v1.Image {
	t.Helper()
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]v1.Image{}
	for _, d := range list.Manifests {
		if all[d.Platform.Architecture], err = index.Image(d.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if got := slices.Sorted(maps.Keys(all)); !slices.Equal(got, []string{"amd64", "arm64"}) {
		t.Fatalf("there are images for %v", got)
	}
	return all
}

func config(t *testing.T, img v1.Image) *v1.ConfigFile {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestImage looks at the images that `make image` wrote.
func TestImage(t *testing.T) {
	t.Parallel()
	bin, _ := built(t)
	index := indexOf(t, filepath.Join(bin, "image"))
	if err := validate.Index(index); err != nil {
		t.Errorf("the index is not valid: %v", err)
	}
	for arch, img := range images(t, index) {
		c := config(t, img)
		if c.OS != "linux" || c.Architecture != arch {
			t.Errorf("%s: the image says that it is for %s/%s", arch, c.OS, c.Architecture)
		}
		if len(c.RootFS.DiffIDs) != 1 || len(c.History) != 1 || !c.History[0].Created.Equal(c.Created.Time) {
			t.Errorf("%s: want one layer and its history, have %+v %+v", arch, c.RootFS, c.History)
		}
		if !slices.Equal(c.Config.Entrypoint, []string{"/sallyport"}) || c.Config.Cmd != nil || c.Config.Env != nil || c.Config.User != "0" {
			t.Errorf("%s: runs %+v", arch, c.Config)
		}
		labels := c.Config.Labels
		for label, want := range map[string]string{"title": "sallyport", "source": source, "licenses": "Apache-2.0"} {
			if got := labels["org.opencontainers.image."+label]; got != want {
				t.Errorf("%s: the label %s is %q, want %q", arch, label, got, want)
			}
		}
		if labels["org.opencontainers.image.version"] == "" || len(labels["org.opencontainers.image.revision"]) != 40 {
			t.Errorf("%s: there is no version or no commit in %v", arch, labels)
		}
		checkLayer(t, arch, img, bin)
		checkArchive(t, arch, img, bin)
	}
}

// checkLayer makes sure that the image holds the two programs that were built and nothing else, and that they run so.
func checkLayer(t *testing.T, arch string, img v1.Image, bin string) {
	t.Helper()
	content := mutate.Extract(img)
	defer content.Close()
	r := tar.NewReader(content)
	created := config(t, img).Created
	version := config(t, img).Config.Labels["org.opencontainers.image.version"]
	for _, name := range []string{"sallyport", "sallyport-cni"} {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != name || h.Typeflag != tar.TypeReg || h.Mode != 0o755 || h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(created.Time) {
			t.Errorf("%s: the layer holds %+v, want %s as old as %v", arch, h, name, created)
		}
		binary, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(filepath.Join(bin, "linux-"+arch, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(binary, want) {
			t.Errorf("%s: %s in the image is not the one that was built", arch, name)
		}
		if err := static(binary, machines[arch]); err != nil {
			t.Errorf("%s: %s: %v", arch, name, err)
		}
		if runtime.GOOS == "linux" && arch == runtime.GOARCH {
			checkRuns(t, binary, version)
		}
	}
	if h, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("%s: the layer holds more: %+v, %v", arch, h, err)
	}
}

// checkRuns starts a program, which says its version for the argument, or the plugin, which says it where no runtime calls it.
func checkRuns(t *testing.T, binary []byte, version string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sallyport")
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "version")
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), version) {
		t.Errorf("the binary does not say that it is %s: %v\n%s", version, err, out)
	}
}

// checkArchive reads the archive in both ways in which it can be read, and expects the same image.
func checkArchive(t *testing.T, arch string, img v1.Image, bin string) {
	t.Helper()
	path := filepath.Join(bin, "sallyport-image-"+arch+".tar")
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	docker, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(docker); err != nil {
		t.Errorf("%s: as Docker reads it, the archive is not valid: %v", arch, err)
	}
	if got, want := config(t, docker), config(t, img); !slices.Equal(got.RootFS.DiffIDs, want.RootFS.DiffIDs) {
		t.Errorf("%s: Docker reads the layers %v, want %v", arch, got.RootFS.DiffIDs, want.RootFS.DiffIDs)
	}

	dir := t.TempDir()
	unpack(t, path, dir)
	oci, err := ocilayout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(oci); err != nil {
		t.Errorf("%s: as a layout, the archive is not valid: %v", arch, err)
	}
	list, err := oci.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	name := "docker.io/library/sallyport:" + config(t, img).Config.Labels["org.opencontainers.image.version"]
	if len(list.Manifests) != 1 || list.Manifests[0].Digest != digest || list.Manifests[0].Annotations["io.containerd.image.name"] != name {
		t.Errorf("%s: the archive names %+v, want %s %s", arch, list.Manifests, name, digest)
	}
}

func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := files{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if all[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := all.writeTo(dir); err != nil {
		t.Fatal(err)
	}
}

// TestReproducible builds the image once more, from a copy of the checkout in another place, and expects the same
// files down to the byte.
func TestReproducible(t *testing.T) {
	t.Parallel()
	bin, root := built(t)
	c := config(t, images(t, indexOf(t, filepath.Join(bin, "image")))["amd64"])
	labels := c.Config.Labels
	copied := filepath.Join(t.TempDir(), "elsewhere")
	copyCheckout(t, root, copied)
	cmd := exec.CommandContext(t.Context(), "make", "-C", copied, "image",
		"VERSION="+labels["org.opencontainers.image.version"],
		"REVISION="+labels["org.opencontainers.image.revision"],
		"SOURCE_DATE_EPOCH="+strconv.FormatInt(c.Created.Unix(), 10))
	// Not what a make that runs this test hands down.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS") })
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make image in a copy: %v\n%s", err, out)
	}
	first, second := digests(t, bin), digests(t, filepath.Join(copied, "bin"))
	if !maps.Equal(first, second) {
		t.Errorf("two builds differ:\n%s\n%s", list(t, first), list(t, second))
	}
}

func copyCheckout(t *testing.T, from, to string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = from
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing the checkout: %v", err)
	}
	all := files{}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(from, name))
		if err != nil || !info.Mode().IsRegular() {
			continue // removed and not committed, or a link, which no source is
		}
		if all[name], err = os.ReadFile(filepath.Join(from, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := all.writeTo(to); err != nil {
		t.Fatal(err)
	}
}

// digests are those of the files of the image, by path.
func digests(t *testing.T, bin string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(bin, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(bin, path)
		if err != nil || d.IsDir() || !strings.HasPrefix(name, "image/") && !strings.HasPrefix(name, "sallyport-image-") {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b, err := newBlob("", content)
		all[name] = b.Digest.String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// oci-layout, index.json, the index, and for each platform five blobs and two files; {} is shared.
	if len(all) < 3+2*7+1 {
		t.Fatalf("there are only these files in %s: %v", bin, all)
	}
	return all
}

func list(t *testing.T, all map[string]string) string {
	t.Helper()
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
