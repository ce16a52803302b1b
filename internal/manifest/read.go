package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// MaxFileSize bounds a file of manifests, in bytes: about 50,000 pools.
const MaxFileSize = 16 << 20

// ErrBusy says that a file is being written.
var ErrBusy = errors.New("is being written")

// Identity tells one state of a file from the next without reading it.
type Identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func identify(st *unix.Stat_t) Identity {
	return Identity{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// String is the same for the same identity, and for no other.
func (id Identity) String() string {
	out := make([]byte, 0, 64)
	for _, n := range []int64{int64(id.dev), int64(id.ino), id.size} {
		out = append(strconv.AppendInt(out, n, 36), '.')
	}
	for _, t := range []unix.Timespec{id.mtime, id.ctime} {
		sec, nsec := t.Unix()
		out = append(strconv.AppendInt(out, sec, 36), '.')
		out = append(strconv.AppendInt(out, nsec, 36), '.')
	}
	return string(out)
}

// Size is that of the file, in bytes.
func (id Identity) Size() int64 { return id.size }

// Changed is how long before a moment the file changed last.
func (id Identity) Changed(now time.Time) time.Duration { return now.Sub(time.Unix(id.ctime.Unix())) }

// Stat is the identity of what a path leads to.
func Stat(path string) (Identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return Identity{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return identify(&st), nil
}

// IsManifest says whether a file of this name in a directory is read.
func IsManifest(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// List is the names of the manifests in a directory, sorted, and which directory it is.
func List(dir string) ([]string, DirIdentity, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, DirIdentity{}, err
	}
	defer f.Close()
	// Of the open directory: the path may lead to another one at any time.
	id, err := identifyDir(int(f.Fd()))
	if err != nil {
		return nil, id, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, id, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !IsManifest(n) })
	slices.Sort(names)
	return names, id, nil
}

// DirIdentity tells one directory from another that stands, or is mounted, in the same place. The time of its birth
// does so where numbers are used again, on file systems that keep it.
type DirIdentity struct {
	Dev, Ino uint64
	Birth    int64 // nanoseconds since 1970; 0: not known
}

// IdentifyDir is the identity of the directory to which a path leads.
func IdentifyDir(path string) (DirIdentity, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return DirIdentity{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return identifyDir(fd)
}

func identifyDir(fd int) (DirIdentity, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return DirIdentity{}, err
	}
	id := DirIdentity{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Birth = st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
	}
	return id, nil
}

// ReadFile reads a file with the state it was in, or ErrBusy if that changed meanwhile or, unless insist is set,
// some process has it open for writing.
func ReadFile(path string, insist bool) ([]byte, Identity, error) {
	// Without O_NONBLOCK, opening a FIFO would wait for a writer.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, Identity{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, Identity{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	id := identify(&st)
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return nil, id, errors.New("is a directory; a manifest is a regular file, and subdirectories must not be named like one")
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, id, errors.New("is no regular file")
	case st.Size > MaxFileSize:
		return nil, id, fmt.Errorf("is %d bytes long, the limit is %d: spread it over several files", st.Size, MaxFileSize)
	case !insist && beingWritten(fd):
		return nil, id, ErrBusy
	}
	data := make([]byte, st.Size)
	for done := 0; done < len(data); {
		n, err := unix.Read(fd, data[done:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, id, &fs.PathError{Op: "read", Path: path, Err: err}
		case n == 0:
			return nil, id, ErrBusy // it became shorter
		default:
			done += n
		}
	}
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, id, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if identify(&st) != id {
		return nil, id, ErrBusy
	}
	if len(bytes.TrimSpace(data)) == 0 {
		// A full disk or a crash leaves this where objects stood; they must not count as removed.
		return nil, id, errors.New("is empty, as a write that failed leaves it: write it again, or remove the file")
	}
	if !utf8.Valid(data) {
		return nil, id, errors.New("is not UTF-8 text: save it as UTF-8")
	}
	return data, id, nil
}

// beingWritten says whether some process has the open file open for writing: only then does the kernel refuse a
// read lease with EAGAIN (fcntl(2), F_SETLEASE). Where leases cannot be had, the answer is no.
func beingWritten(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil { // given back at once, so that no writer waits for it
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}

// IsLink says whether a path is a link, wherever that leads.
func IsLink(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&os.ModeSymlink != 0
}

// Explain is the text of a fault for a file or directory that cannot be read.
func Explain(path string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if IsLink(path) {
			return "is a link to something that does not exist: fix or remove the link"
		}
		return "does not exist: create it"
	case errors.Is(err, unix.ENOTDIR):
		return "is not a directory, or lies below something that is none"
	case errors.Is(err, unix.ELOOP):
		return "is a link that leads to itself: fix or remove the link"
	case errors.Is(err, fs.ErrPermission):
		return "cannot be read: permission denied; make it readable for the agent"
	}
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return "cannot be read: " + e.Err.Error()
	}
	return err.Error()
}
