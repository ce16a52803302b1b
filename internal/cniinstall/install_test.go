package cniinstall

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// files are to be installed from and into directories of the test.
func files(t *testing.T) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{Plugin: filepath.Join(dir, "from"), BinDir: filepath.Join(dir, "opt", "bin"), ConfDir: filepath.Join(dir, "etc"), Log: slog.New(slog.DiscardHandler)}
	write(t, f.Plugin, "\x7fELF "+mark)
	return f
}

func write(t *testing.T, path, text string) {
	t.Helper()
	// A program that another test starts at the same moment would hold the file open, which then could not be started.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func (f Files) paths() []string {
	return []string{filepath.Join(f.BinDir, PluginFile), filepath.Join(f.ConfDir, ListFile)}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	f := files(t)
	bin, conf := f.paths()[0], f.paths()[1]
	write(t, filepath.Join(f.ConfDir, "87-podman.conflist"), "theirs")
	write(t, filepath.Join(f.BinDir, "ptp"), "theirs")
	written, err := f.Install(t.Context())
	if err != nil || !slices.Equal(written, f.paths()) {
		t.Fatalf("wrote %s, %v", written, err)
	}
	for path, mode := range map[string]fs.FileMode{bin: 0o755, conf: 0o644} {
		if st, err := os.Stat(path); err != nil || st.Mode() != mode {
			t.Errorf("%s has mode %v, %v", path, st.Mode(), err)
		}
	}
	if got := read(t, bin); got != read(t, f.Plugin) {
		t.Errorf("the plugin is %q", got)
	}
	if written, err := f.Install(t.Context()); err != nil || len(written) > 0 {
		t.Errorf("wrote %s again, %v", written, err)
	}
	// An upgrade, a mode that was changed, and what others put into the place.
	write(t, f.Plugin, "\x7fELF newer "+mark)
	if err := os.Chmod(conf, 0o600); err != nil {
		t.Fatal(err)
	}
	if written, err := f.Install(t.Context()); err != nil || !slices.Equal(written, f.paths()) {
		t.Errorf("wrote %s, %v", written, err)
	}
	other := filepath.Join(f.ConfDir, "87-podman.conflist")
	for _, path := range f.paths() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(other, path); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(f.BinDir, ".sallyport-cni.tmp"), "half of it, as after a crash")
	if written, err := f.Install(t.Context()); err != nil || !slices.Equal(written, f.paths()) {
		t.Errorf("wrote %s, %v", written, err)
	}
	if got := read(t, other); got != "theirs" {
		t.Errorf("another network's configuration is %q", got)
	}
	if got := names(t, f.BinDir); !slices.Equal(got, []string{"ptp", PluginFile}) {
		t.Errorf("the directory of plugins holds %s", got)
	}
	if got := names(t, f.ConfDir); !slices.Equal(got, []string{ListFile, "87-podman.conflist"}) {
		t.Errorf("the directory of configurations holds %s", got)
	}
}

// A file that cannot be replaced, or that is not the plugin, is said, and what stood there stays.
func TestInstallFails(t *testing.T) {
	t.Parallel()
	f := files(t)
	if _, err := f.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := read(t, f.paths()[0])
	write(t, f.Plugin, "another program")
	if _, err := f.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "--plugin") {
		t.Errorf("another program: %v", err)
	}
	f.Plugin += "-missing"
	if _, err := f.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "-missing") {
		t.Errorf("no plugin: %v", err)
	}
	if got := read(t, f.paths()[0]); got != before {
		t.Errorf("the plugin is %q", got)
	}
	f = files(t)
	write(t, filepath.Join(f.ConfDir, ListFile, "file"), "in a directory of this name")
	if _, err := f.Install(t.Context()); err == nil || !strings.Contains(err.Error(), "network configuration") {
		t.Errorf("a directory: %v", err)
	}
	if got := names(t, f.ConfDir); !slices.Equal(got, []string{ListFile}) {
		t.Errorf("the directory of configurations holds %s", got)
	}
}

// What could not be written takes the place of nothing: here the name of the file aside is taken.
func TestInstallPutsNothingHalfWritten(t *testing.T) {
	t.Parallel()
	f := files(t)
	aside := "." + PluginFile + ".tmp"
	write(t, filepath.Join(f.BinDir, aside, "file"), "in a directory of this name")
	if _, err := f.Install(t.Context()); err == nil || !strings.Contains(err.Error(), aside) {
		t.Errorf("installed: %v", err)
	}
	if got := names(t, f.BinDir); !slices.Equal(got, []string{aside}) {
		t.Errorf("the directory of plugins holds %s", got)
	}
}

// What runtimes make of the list, with the plugins that a node may have.
func TestList(t *testing.T) {
	t.Parallel()
	says := func(versions string) string { return "#!/bin/sh\necho '{\"supportedVersions\":[" + versions + "]}'\n" }
	tests := []struct {
		name    string
		plugins map[string]string
		want    string // the types
		version string // that a new libcni speaks
	}{
		{"none", nil, "sallyport-cni", "1.1.0"},
		{"new ones", map[string]string{"portmap": says(`"1.0.0","1.1.0"`), "bandwidth": says(`"1.0.0","1.1.0"`)}, "sallyport-cni portmap bandwidth", "1.1.0"},
		{"one of 1.0", map[string]string{"portmap": says(`"0.4.0","1.0.0"`), "bandwidth": says(`"1.0.0","1.1.0"`)}, "sallyport-cni portmap bandwidth", "1.0.0"},
		{"one that is too old", map[string]string{"portmap": says(`"0.3.1","0.4.0"`)}, "sallyport-cni", "1.1.0"},
		{"one that cannot be started here", map[string]string{"bandwidth": "#!/no/such/loader\n"}, "sallyport-cni bandwidth", "1.0.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := files(t)
			for name, text := range tt.plugins {
				write(t, filepath.Join(f.BinDir, name), text)
			}
			if _, err := f.Install(t.Context()); err != nil {
				t.Fatal(err)
			}
			text := read(t, f.paths()[1])
			l, err := libcni.NetworkConfFromBytes([]byte(text))
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			var types []string
			for _, p := range l.Plugins {
				types = append(types, p.Network.Type)
			}
			if got := strings.Join(types, " "); got != tt.want || l.CNIVersion != tt.version || l.Name != "sallyport" {
				t.Errorf("plugins %s, version %s, name %s, want %s and %s", got, l.CNIVersion, l.Name, tt.want, tt.version)
			}
			var old struct{ CNIVersion string } // as containerd 1.6 reads it
			if err := json.Unmarshal([]byte(text), &old); err != nil || old.CNIVersion != "1.0.0" {
				t.Errorf("cniVersion is %q, %v", old.CNIVersion, err)
			}
		})
	}
}

func TestUninstall(t *testing.T) {
	t.Parallel()
	f := files(t)
	if removed, err := f.Uninstall(); err != nil || len(removed) > 0 {
		t.Errorf("removed %s of nothing, %v", removed, err)
	}
	write(t, filepath.Join(f.ConfDir, "10-calico.conflist"), "theirs")
	if _, err := f.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(read(t, f.paths()[1]), `"ips": true`, `"ips": false`, 1)
	write(t, f.paths()[1], edited)
	if removed, err := f.Uninstall(); err != nil || len(removed) != 2 {
		t.Errorf("removed %s, %v", removed, err)
	}
	if got := slices.Concat(names(t, f.ConfDir), names(t, f.BinDir)); !slices.Equal(got, []string{"10-calico.conflist"}) {
		t.Errorf("left are %s", got)
	}
	write(t, f.paths()[0], "another program")
	write(t, f.paths()[1], `{"plugins":[{"type":"ptp"},{"type":"sallyport-cni"}]}`)
	removed, err := f.Uninstall()
	if len(removed) > 0 || err == nil || strings.Count(err.Error(), "not Sallyport's") != 2 {
		t.Errorf("removed %s, %v", removed, err)
	}
}

// TestTheMark builds the plugin and looks for what it is known by.
func TestTheMark(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "plugin")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "github.com/sallyport/sallyport/cmd/sallyport-cni")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(read(t, path), mark) {
		t.Errorf("the plugin does not contain %q", mark)
	}
}

// log is what was logged so far.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func TestKeep(t *testing.T) {
	t.Parallel()
	f := files(t)
	var l log
	f.Log = slog.New(slog.NewTextHandler(&l, nil))
	write(t, filepath.Join(f.ConfDir, "05-other.conflist"), "theirs")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Keep(ctx) }()
	want := func(when string, plugins int, check func() bool) {
		t.Helper()
		for start := time.Now(); !check(); {
			if time.Since(start) > 20*time.Second {
				t.Fatalf("%s: not repaired", when)
			}
		}
		var c list
		if err := json.Unmarshal([]byte(read(t, f.paths()[1])), &c); err != nil || len(c.Plugins) != plugins {
			t.Errorf("%s: the configuration is %+v, %v", when, c, err)
		}
	}
	installed := func() bool {
		for i, path := range f.paths() {
			if b, err := os.ReadFile(path); err != nil || i == 0 && string(b) != read(t, f.Plugin) || i == 1 && !isOurList(b) {
				return false
			}
		}
		return true
	}
	want("at the start", 1, installed)
	for _, path := range f.paths() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		want("after a removal", 1, installed)
		write(t, path, "changed")
		want("after a change", 1, installed)
	}
	if err := os.RemoveAll(f.BinDir); err != nil {
		t.Fatal(err)
	}
	want("without the directory", 1, installed)
	write(t, filepath.Join(f.BinDir, "portmap"), "#!/bin/sh\necho '{\"supportedVersions\":[\"1.0.0\",\"1.1.0\"]}'\n")
	want("with another plugin", 2, func() bool {
		b, err := os.ReadFile(f.paths()[1])
		return err == nil && bytes.Contains(b, []byte("portmap"))
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !installed() {
		t.Error("the end of the command removes the files")
	}
	if got := read(t, filepath.Join(f.ConfDir, "05-other.conflist")); got != "theirs" || l.count("05-other.conflist") != 1 {
		t.Errorf("the other configuration is %q, and named %d times in the log", got, l.count("05-other.conflist"))
	}
	if l.count("msg=installed") != 2 || l.count("put back") == 0 {
		t.Errorf("the log says %s", &l.text)
	}
}
