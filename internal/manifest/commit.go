package manifest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/waiting"
)

// lockPatience is how long an edit waits for another one to finish.
const lockPatience = 10 * time.Second

// lock keeps other edits of the directory out, and waits for one that is under way, as long as the context and patience
// allow. It locks the directory itself (flock(2)), so that it leaves nothing behind, and ends with the process.
func lock(ctx context.Context, dir string, patience time.Duration) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the directory of manifests %s %s", dir, Explain(dir, &fs.PathError{Op: "open", Path: dir, Err: err}))
	}
	for {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOLCK) { // a file system without locks
			return func() { _ = unix.Close(fd) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("locking %s against other edits: %w", dir, err)
		}
		if !waiting.Sleep(ctx, nil, 20*time.Millisecond) {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("another edit of %s goes on, and did not end within %s: try again when it has", dir, time.Since(began).Round(100*time.Millisecond))
		}
	}
}

// fileWrite is a file to be replaced, made or, where nothing is left of it, removed.
type fileWrite struct {
	path string
	data []byte
	was  *Identity // the state in which it was read; nil: it must not exist

	target string // where path leads
	temp   string // the new contents, in the directory of target
}

// commit puts files in place. All contents are on disk before the first file changes, so that a full disk changes
// nothing.
func commit(writes []fileWrite) (err error) {
	defer func() {
		for _, w := range writes {
			if w.temp != "" {
				_ = os.Remove(w.temp) // gone where it was renamed
			}
		}
	}()
	for i := range writes {
		if err := writes[i].stage(); err != nil {
			return fmt.Errorf("nothing was changed: %w", err)
		}
	}
	var done []string
	for i := range writes {
		if err := writes[i].place(); err != nil {
			if len(done) > 0 {
				err = fmt.Errorf("only %s changed: %w", strings.Join(done, ", "), err)
			}
			return err
		}
		done = append(done, writes[i].path)
	}
	return nil
}

// stage writes the contents to a file beside the target, with its mode and owner.
func (w *fileWrite) stage() error {
	w.target = w.path
	mode := fs.FileMode(0o644)
	var st unix.Stat_t
	if w.was != nil {
		target, err := filepath.EvalSymlinks(w.path)
		if err != nil {
			return fmt.Errorf("following %s: %w", w.path, err)
		}
		w.target = target
		if err := unix.Stat(target, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: target, Err: err}
		}
		mode = fs.FileMode(st.Mode & 0o7777).Perm()
		if blank(w.data) {
			return nil
		}
	}
	f, err := os.CreateTemp(filepath.Dir(w.target), ".sallyport-*")
	if err != nil {
		return fmt.Errorf("writing beside %s: %w", w.target, err)
	}
	w.temp = f.Name()
	_, err = f.Write(w.data)
	if err == nil && w.was != nil {
		err = keepOwner(f, &st)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", w.temp, err)
	}
	return nil
}

// keepOwner gives a file the owner of the one that it replaces. Who may not give files away keeps at least
// the group, where that is allowed.
func keepOwner(f *os.File, st *unix.Stat_t) error {
	err := f.Chown(int(st.Uid), int(st.Gid))
	if errors.Is(err, fs.ErrPermission) {
		if err = f.Chown(-1, int(st.Gid)); errors.Is(err, fs.ErrPermission) {
			return nil
		}
	}
	return err
}

// place puts the contents where they belong, unless somebody else changed the file meanwhile.
func (w *fileWrite) place() error {
	if w.was == nil {
		if err := renameNew(w.temp, w.target); err != nil {
			return fmt.Errorf("making %s: %w", w.target, err)
		}
		w.temp = ""
		return syncDir(w.target)
	}
	if id, err := Stat(w.target); err != nil || id != *w.was {
		return fmt.Errorf("%s was changed by another program meanwhile: try again", w.path)
	}
	if w.temp == "" {
		if err := os.Remove(w.path); err != nil {
			return err
		}
		return syncDir(w.path)
	}
	if err := os.Rename(w.temp, w.target); err != nil {
		return fmt.Errorf("replacing %s: %w", w.target, err)
	}
	w.temp = ""
	return syncDir(w.target)
}

// renameNew renames, and fails where the new name is taken.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) { // a file system that cannot do both at once
		return unix.EEXIST
	}
	return os.Rename(from, to)
}

// syncDir makes a change of names in the directory of a file last.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // a file system that cannot
		return fmt.Errorf("syncing %s: %w", d.Name(), err)
	}
	return nil
}
