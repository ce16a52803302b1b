package dir

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
)

// How a directory without some of its manifests is told from one that is missing.
//
// A mount that is late, a file system that is mounted over the directory, and a directory that is being filled file by file
// all look like a directory from which manifests were removed. So the Store remembers, also in its state file, from which
// directory the state in force was read: its device, inode and time of birth, or else the boot. What is removed from that
// directory is removed, by `sallyport delete` or by hand, and whether or not an agent runs. If another directory stands in
// its place and lacks objects that are in force, nothing changes, and that is a fault, until they are there or Forget is told
// of them. A link on the way to the directory that leads elsewhere is the exception: it is how a directory is
// replaced at once, with all of its contents, so that only an empty one is a fault there.

// identityPeriod is how often the Store looks whether its path leads to another directory. inotify does not tell of
// mounts.
const identityPeriod = 2 * time.Second

// origin is a directory from which a state was read.
type origin struct {
	manifest.DirIdentity
	// boot names the boot in which that was, where the file system keeps no time of birth (tmpfs before Linux 6.0): its
	// numbers can come again in the next boot, for another directory.
	boot string
	// path is where it stood, without links; empty: that was not kept.
	path string
}

// is says whether both are one directory.
func (o origin) is(p origin) bool { return o.DirIdentity == p.DirIdentity && o.boot == p.boot }

// here is the directory that was looked over last.
func (s *Store) here() origin {
	if s.root.Birth != 0 {
		return origin{DirIdentity: s.root, path: s.watcher.rootDir}
	}
	return origin{s.root, s.boot, s.watcher.rootDir}
}

// originNumbers is the length of the numbers of an origin in the state file, before its boot and, after a 0, its path.
const originNumbers = 3 * 8

// encode is the form of an origin in the state file.
func (o origin) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, o.Dev)
	b = binary.BigEndian.AppendUint64(b, o.Ino)
	return append(binary.BigEndian.AppendUint64(b, uint64(o.Birth)), o.boot+"\x00"+o.path...)
}

// decodeOrigin is the zero value, which no directory has, where nothing is known.
func decodeOrigin(b []byte) origin {
	if len(b) < originNumbers {
		return origin{}
	}
	boot, path, _ := strings.Cut(string(b[originNumbers:]), "\x00")
	return origin{manifest.DirIdentity{Dev: binary.BigEndian.Uint64(b), Ino: binary.BigEndian.Uint64(b[8:]), Birth: int64(binary.BigEndian.Uint64(b[16:]))}, boot, path}
}

// swapped says whether the path leads to another directory than the one that was looked over last.
func (s *Store) swapped(now time.Time) bool {
	s.identified = now
	id, err := manifest.IdentifyDir(s.path)
	return err != nil || id != s.root
}

// missing is the fault of a directory without manifests where it is not known what was in force; nil: its emptiness is
// meant.
func (s *Store) missing() *model.Fault {
	var was string
	switch {
	case !s.empty || s.here().is(s.origin) || len(s.tables.records) > 0:
		return nil
	case s.saver.Lost():
		was = "the last good state, which is damaged, was read"
	case s.version == 0 && s.translating():
		was = "an earlier agent, whose rules are in the kernel and whose state is gone, has read"
	default:
		return nil
	}
	return &model.Fault{File: s.path, Message: fmt.Sprintf("the directory of manifests is empty, and is not the directory from which %s: a mount is "+
		"missing, or another one hides it. Mount it again; or if nothing is to be in force, write a file with only a comment, such as %s/none.yaml", was, s.path)}
}

// absent is the objects in force that no file declares, where that may not be meant: sorted by key.
func (s *Store) absent() (out []Key) {
	here := s.here()
	moved := s.origin.path != "" && s.origin.path != here.path
	if len(s.tables.records) == 0 || here.is(s.origin) || moved && !s.empty {
		return nil
	}
	for _, r := range s.tables.records {
		if len(s.index.live(r.Key)) == 0 {
			out = append(out, r.Key)
		}
	}
	return out
}

// weigh makes it a fault that objects in force are absent, once their files have had time to come, and none once they are
// there. The fault is brought up to date with each look: a directory may be filled with thousands of files.
func (s *Store) weigh(now time.Time) {
	absent := s.absent()
	at := s.expiry()
	switch {
	case len(absent) == 0 || s.rootFault != nil || !s.begun:
		s.setLack(nil)
	case s.lack == nil && now.Before(at):
	case s.lack == nil || s.scanned.Equal(now):
		s.setLack(s.lacking(absent))
	}
}

func (s *Store) setLack(f *model.Fault) {
	if (s.lack == nil) != (f == nil) || f != nil && *s.lack != *f {
		s.lack, s.stale = f, true
	}
}

// lacking is the fault that objects are absent.
func (s *Store) lacking(absent []Key) *model.Fault {
	names := make([]string, len(absent))
	for i, k := range absent {
		names[i] = k.String()
	}
	is := "lacks"
	if s.empty {
		is = "is empty, and so lacks"
	}
	return &model.Fault{File: s.path, Message: fmt.Sprintf("the directory of manifests %s %d of the %d resources in force (%s), and is not the directory from "+
		"which they were read: a mount is missing, another one hides it, or it is still being filled. Mount it again, or put their manifests back; or if they are to go, "+
		"say so with sallyport delete, such as: sallyport delete %s %s", is, len(absent), len(s.tables.records), text.Few(names), strings.ToLower(absent[0].Kind), absent[0].Name)}
}

// Forget takes out of force objects that the directory does not declare, and that are held only since it is not the
// directory from which they were read. It forgets all of them or none.
func (s *Store) Forget(ctx context.Context, keys []Key) error {
	var err error
	forget := func() {
		if err = ctx.Err(); err == nil { // what was given up must not be done later
			err = s.forget(keys)
		}
	}
	if e := s.ask(ctx, forget); e != nil {
		return e
	}
	return err
}

func (s *Store) forget(keys []Key) error {
	switch {
	case s.rootFault != nil:
		return fmt.Errorf("what the directory declares cannot be read: %w", s.rootFault)
	case !s.begun:
		return fmt.Errorf("%s is being written: try again when it is complete", s.path)
	}
	absent := s.absent()
	gone := make([]change, 0, len(keys))
	for _, k := range slices.Compact(slices.SortedFunc(slices.Values(keys), Key.Compare)) {
		if _, held := slices.BinarySearchFunc(absent, k, Key.Compare); !held {
			return fmt.Errorf("%s is not one of the resources that the directory lacks", k)
		}
		gone = append(gone, change{key: k})
	}
	s.log.Info("resources that the directory lacks are deleted, as was asked for", "deleted", len(gone))
	s.enforce(gone)
	s.lack = nil // it has other words now
	return nil
}

// translating says whether the kernel translates by what an earlier agent has read, or may.
func (s *Store) translating() bool {
	if s.translates == nil {
		return false
	}
	yes, err := s.translates()
	if err != nil {
		s.log.Warn("whether the kernel translates anything cannot be read; it counts as if it did", "error", err)
	}
	return yes || err != nil
}

// settle notes that what is in force was read from the directory as it stands.
func (s *Store) settle() {
	if s.origin == s.here() {
		return
	}
	s.origin = s.here()
	s.saver.SetNote(s.origin.encode())
	s.saver.Add(entriesOf(nil), entries(s.tables.records))
	s.saver.Wake()
}
