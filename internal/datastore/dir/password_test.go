package dir

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
)

func TestPasswordsOfFiles(t *testing.T) {
	t.Parallel()
	const secret = "s3cret"
	write := func(t *testing.T, path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		must(t, os.Chmod(path, mode)) // whatever the umask
	}
	for _, test := range []struct {
		name string
		make func(t *testing.T, dir string) // dir/bgp is there
		want string
		why  string
	}{
		{"right", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", secret+"\n", 0o600) }, secret, ""},
		{"read only, with the line end of Windows", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", secret+"\r\n", 0o400) }, secret, ""},
		{"spaces count", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", " a b ", 0o600) }, " a b ", ""},
		{"80 bytes", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", strings.Repeat("x", 80)+"\n", 0o600) }, strings.Repeat("x", 80), ""},
		{"81 bytes", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", strings.Repeat("x", 81), 0o600) }, "", "rack has more than the 80 bytes"},
		{"a large file", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", strings.Repeat("x", 1<<20), 0o600) }, "", "more than the 80 bytes"},
		{"empty", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", "\n", 0o600) }, "", "rack is empty"},
		{"two lines", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", secret+"\n#\n", 0o600) }, "", "more than one line"},
		{"absent", func(*testing.T, string) {}, "", "bgp/rack does not exist: write the password into it"},
		{"others read", func(t *testing.T, dir string) { write(t, dir+"/bgp/rack", secret, 0o640) }, "", "has the mode 0640, so that others can read it: give it the mode 0600 (chmod 0600 "},
		{"others change", func(t *testing.T, dir string) {
			write(t, dir+"/bgp/rack", secret, 0o600)
			must(t, os.Chmod(dir+"/bgp", 0o777))
		}, "", "/bgp has the mode 0777, so that others can change it: give it the mode 0700"},
		{"others change all", func(t *testing.T, dir string) {
			write(t, dir+"/bgp/rack", secret, 0o600)
			must(t, os.Chmod(dir, 0o775))
		}, "", "has the mode 0775"},
		{"symbolic link", func(t *testing.T, dir string) {
			write(t, dir+"/other", secret, 0o600)
			must(t, os.Symlink("../other", dir+"/bgp/rack"))
		}, "", "bgp/rack is a symbolic link"},
		{"symbolic link to a directory", func(t *testing.T, dir string) {
			must(t, os.Mkdir(dir+"/other", 0o700))
			write(t, dir+"/other/rack", secret, 0o600)
			must(t, os.Remove(dir+"/bgp"))
			must(t, os.Symlink("other", dir+"/bgp"))
		}, "", "/bgp must be a directory, and no symbolic link"},
		{"a directory", func(t *testing.T, dir string) { must(t, os.Mkdir(dir+"/bgp/rack", 0o700)) }, "", "rack is no regular file"},
		{"a pipe", func(t *testing.T, dir string) { must(t, syscall.Mkfifo(dir+"/bgp/rack", 0o600)) }, "", "rack is no regular file"},
		{"another user's", func(t *testing.T, dir string) {
			if os.Geteuid() != 0 { // root alone gives files away
				write(t, dir+"/bgp/rack", secret, 0o644)
				return
			}
			write(t, dir+"/bgp/rack", secret, 0o600)
			must(t, os.Chown(dir+"/bgp/rack", 12345, 0))
		}, "", "bgp/rack "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must(t, os.Chmod(dir, 0o755))
			must(t, os.Mkdir(filepath.Join(dir, "bgp"), 0o700))
			test.make(t, dir)
			s := &Store{passwordDir: dir, log: slog.New(slog.DiscardHandler)}
			for _, optional := range []bool{false, true} {
				why := test.why
				if optional && test.name == "absent" {
					why = ""
				}
				got, err := s.Password(t.Context(), model.BGPPassword{Name: "bgp", Key: "rack", Optional: optional})
				if got != test.want || (err != nil) != (why != "") || err != nil && !strings.Contains(err.Error(), why) {
					t.Errorf("optional %t: %q, %v; want %q, %q", optional, got, err, test.want, why)
				}
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("the error has the password: %v", err)
				}
			}
		})
	}
}

// TestPasswordsStayInTheirDirectory names files elsewhere, as validation refuses to.
func TestPasswordsStayInTheirDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/passwords/bgp", 0o700))
	must(t, os.WriteFile(dir+"/rack", []byte("s3cret"), 0o600))
	s := &Store{passwordDir: dir + "/passwords"}
	for _, ref := range []model.BGPPassword{{Name: "..", Key: "rack"}, {Name: "bgp", Key: "../../rack"}, {Name: "../", Key: "rack"}, {Name: "", Key: "rack"}, {Name: "bgp", Key: "."}, {Name: "bgp", Key: ""}} {
		if got, err := s.Password(t.Context(), ref); got != "" || err == nil || !strings.Contains(err.Error(), "is not the name of a file") {
			t.Errorf("%+v: %q, %v", ref, got, err)
		}
	}
}
