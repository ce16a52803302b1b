package cniinstall

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/waiting"
)

const (
	// settle is the least time between two looks, so that another program that writes the same files costs little.
	settle = 200 * time.Millisecond
	// slow is the longest time between two looks: where the kernel does not report changes, or another file system is mounted.
	slow = 5 * time.Minute
	// again is the pause after a failure.
	again = time.Second
)

// changes are the events of inotify(7) that are looked at.
const changes = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF

// Keep installs the files, and again whenever they are changed or removed, until the context ends. It leaves them.
func (f Files) Keep(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("making an inotify instance (see /proc/sys/fs/inotify/max_user_instances): %w", err)
	}
	note := os.NewFile(uintptr(fd), "inotify")
	changed := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		heed(note, changed)
	}()
	defer func() { _ = note.Close(); <-done }()
	k := keeper{Files: f, fd: fd, known: map[string]bool{}}
	for {
		pause := slow
		if !k.look(ctx) {
			pause = again
		}
		if !waiting.Sleep(ctx, nil, settle) || !waiting.Sleep(ctx, changed, pause) {
			return nil
		}
	}
}

// keeper remembers what it has said.
type keeper struct {
	Files

	fd      int             // of inotify
	known   map[string]bool // files that it has written
	failed  string          // the last error
	earlier string          // configurations before ours
}

// look installs what differs, and says whether all is as it must be and is watched.
func (k *keeper) look(ctx context.Context) bool {
	// Watched again each time, since the directory of that name may be another one now, and before the files are read.
	err := errors.Join(os.MkdirAll(k.BinDir, 0o755), os.MkdirAll(k.ConfDir, 0o755), watch(k.fd, k.BinDir), watch(k.fd, k.ConfDir))
	written, failed := k.Install(ctx)
	for _, path := range written {
		if k.known[path] {
			k.Log.Warn("a file was changed or removed, and is put back", "file", path)
		} else {
			k.Log.Info("installed", "file", path)
		}
		k.known[path] = true
	}
	said := ""
	if err = errors.Join(err, failed); err != nil && ctx.Err() == nil {
		if said = err.Error(); said != k.failed {
			k.Log.Error("the CNI plugin is not installed as it must be; it is tried again", "error", err)
		}
	}
	k.failed = said
	names := strings.Join(k.preferred(), ", ")
	if names != k.earlier && names != "" {
		k.Log.Warn("a runtime uses the first network configuration by name, which is not Sallyport's: remove it, or the pods of this node are on another network", "directory", k.ConfDir, "first", names)
	}
	k.earlier = names
	return err == nil
}

// watch asks for reports about a directory. One that is watched already keeps its watch.
func watch(fd int, dir string) error {
	if _, err := unix.InotifyAddWatch(fd, dir, changes|unix.IN_ONLYDIR); err != nil {
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	return nil
}

// heed signals each report, until the file is closed.
func heed(note *os.File, changed chan<- struct{}) {
	buf := make([]byte, 4096)
	for {
		if _, err := note.Read(buf); err != nil {
			return
		}
		waiting.Signal(changed)
	}
}
