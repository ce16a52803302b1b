package dir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What is asked of the kernel (inotify(7)). A directory whose files are manifests is watched for contents;
// one that only leads there, for names.
const (
	watchNames    = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	watchContents = watchNames | unix.IN_CLOSE_WRITE | unix.IN_MODIFY | unix.IN_ATTRIB
)

// event is one report of the kernel: something happened to name in a directory, or to the directory itself
// (name is empty).
type event struct {
	wd   int
	mask uint32
	name string
}

// notifier is an inotify instance. Reading blocks in Go's poller, so that an idle one costs nothing.
type notifier struct {
	file *os.File
	fd   int
}

func newNotifier() (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making an inotify instance (see /proc/sys/fs/inotify/max_user_instances): %w", err)
	}
	return &notifier{file: os.NewFile(uintptr(fd), "inotify"), fd: fd}, nil
}

// add watches a directory, in addition to what it is watched for already. The same directory, by whatever
// path, has the same descriptor.
func (n *notifier) add(path string, mask uint32) (int, error) {
	wd, err := unix.InotifyAddWatch(n.fd, path, mask|unix.IN_MASK_ADD|unix.IN_ONLYDIR)
	if errors.Is(err, unix.ENOSPC) {
		return 0, fmt.Errorf("watching %s (see /proc/sys/fs/inotify/max_user_watches): %w", path, err)
	}
	if err != nil {
		return 0, fmt.Errorf("watching %s: %w", path, err)
	}
	return wd, nil
}

// remove ends a watch. One that ended by itself is no error.
func (n *notifier) remove(wd int) {
	_, _ = unix.InotifyRmWatch(n.fd, uint32(wd))
}

// read waits for events and returns all that are queued, up to the size of its buffer.
func (n *notifier) read(buf []byte) ([]event, error) {
	size, err := n.file.Read(buf)
	if err != nil {
		return nil, fmt.Errorf("reading inotify events: %w", err)
	}
	return parseEvents(buf[:size]), nil
}

func (n *notifier) close() error { return n.file.Close() }

// parseEvents takes apart what the kernel wrote: struct inotify_event, then len bytes of name padded with
// zeros (include/uapi/linux/inotify.h).
func parseEvents(b []byte) []event {
	var out []event
	for len(b) >= unix.SizeofInotifyEvent {
		length := int(binary.NativeEndian.Uint32(b[12:]))
		if length > len(b)-unix.SizeofInotifyEvent {
			break
		}
		name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:unix.SizeofInotifyEvent+length], []byte{0})
		out = append(out, event{
			wd:   int(int32(binary.NativeEndian.Uint32(b))),
			mask: binary.NativeEndian.Uint32(b[4:]),
			name: string(name),
		})
		b = b[unix.SizeofInotifyEvent+length:]
	}
	return out
}
