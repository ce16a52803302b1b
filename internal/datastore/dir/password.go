package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// passwordRead bounds what is read of a password's file, in bytes. What is longer is no password.
const passwordRead = 1024

// Password reads the file that has the name of the key, in the directory that has the name of the Secret, as datastore.Passwords says. No
// other user may be able to read that file, or to put another one in its place. It may be called while Run runs.
func (s *Store) Password(_ context.Context, ref model.BGPPassword) (string, error) {
	path := filepath.Join(s.passwordDir, ref.Name, ref.Key)
	for _, name := range []string{ref.Name, ref.Key} { // validation has seen to it; but paths are made of them
		if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') {
			return "", fmt.Errorf("%q is not the name of a file", name)
		}
	}
	b, err := readPrivate(s.passwordDir, ref.Name, ref.Key)
	switch {
	case errors.Is(err, os.ErrNotExist) && ref.Optional:
		return "", nil
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("the file %s does not exist: write the password into it, of mode 0600", path)
	case err != nil:
		return "", err
	}
	password, err := datastore.PasswordOf(b)
	if err != nil {
		return "", fmt.Errorf("the file %s %w", path, err)
	}
	return password, nil
}

// readPrivate reads the file DIR/NAME/KEY. What is opened is what is judged; only DIR may be a symbolic link.
func readPrivate(dir, name, key string) ([]byte, error) {
	at, path := unix.AT_FDCWD, ""
	for _, step := range []struct {
		name  string
		flags int
	}{{dir, unix.O_DIRECTORY}, {name, unix.O_DIRECTORY | unix.O_NOFOLLOW}, {key, unix.O_NOFOLLOW | unix.O_NONBLOCK}} {
		path = filepath.Join(path, step.name)
		fd, err := unix.Openat(at, step.name, step.flags|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, notOpened(path, err)
		}
		defer unix.Close(fd)
		if err := private(fd, path, step.flags&unix.O_DIRECTORY != 0); err != nil {
			return nil, err
		}
		at = fd
	}
	fd, err := unix.FcntlInt(uintptr(at), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the file %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, passwordRead))
	if err != nil {
		return nil, fmt.Errorf("reading a password: %w", err)
	}
	return b, nil
}

// notOpened is the error of a file or directory that cannot be opened.
func notOpened(path string, err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a symbolic link, which is not followed: put the file or directory itself there", path)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s must be a directory, and no symbolic link", path)
	}
	return fmt.Errorf("opening %s: %w", path, err)
}

// private makes sure that no other user but root can read a file, or change a directory.
func private(fd int, path string, directory bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("looking at %s: %w", path, err)
	}
	kind, bits, verb, mode := uint32(unix.S_IFREG), uint32(0o077), "read", "0600"
	if directory {
		kind, bits, verb, mode = unix.S_IFDIR, 0o022, "change", "0700"
	}
	switch {
	case st.Mode&unix.S_IFMT != kind:
		return fmt.Errorf("%s is no regular file: write the password into a file", path)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to the user %d, who can change it: give it to root (chown root %s)", path, st.Uid, path)
	case st.Mode&bits != 0:
		return fmt.Errorf("%s has the mode %04o, so that others can %s it: give it the mode %s (chmod %s %s)", path, st.Mode&0o7777, verb, mode, mode, path)
	}
	return nil
}
