package dir

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// How an empty directory is told from one that is missing.
//
// A mount that is late, or an empty file system that is mounted over the directory, looks like a directory without
// manifests. So the Store remembers, also in its state file, from which directory the state in force was read: its
// device, inode and time of birth, or else the boot. If that directory is emptied, by `sallyport delete` or by hand and whether or not
// an agent runs, its objects are gone. If another directory without manifests stands in its place, nothing changes,
// and that is a fault. A file with nothing but a comment is a manifest: it says that nothing is to be in force.

// identityPeriod is how often the Store looks whether its path leads to another directory. inotify does not tell of
// mounts.
const identityPeriod = 2 * time.Second

// origin is a directory from which a state was read.
type origin struct {
	manifest.DirIdentity
	// boot names the boot in which that was, where the file system keeps no time of birth (tmpfs before Linux 6.0): its
	// numbers can come again in the next boot, for another directory.
	boot string
}

// here is the directory that was looked over last.
func (s *Store) here() origin {
	if s.root.Birth != 0 {
		return origin{DirIdentity: s.root}
	}
	return origin{s.root, s.boot}
}

// originNumbers is the length of the numbers of an origin in the state file, before its boot.
const originNumbers = 3 * 8

// encode is the form of an origin in the state file.
func (o origin) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, o.Dev)
	b = binary.BigEndian.AppendUint64(b, o.Ino)
	return append(binary.BigEndian.AppendUint64(b, uint64(o.Birth)), o.boot...)
}

// decodeOrigin is the zero value, which no directory has, where nothing is known.
func decodeOrigin(b []byte) origin {
	if len(b) < originNumbers {
		return origin{}
	}
	return origin{manifest.DirIdentity{Dev: binary.BigEndian.Uint64(b), Ino: binary.BigEndian.Uint64(b[8:]), Birth: int64(binary.BigEndian.Uint64(b[16:]))},
		string(b[originNumbers:])}
}

// swapped says whether the path leads to another directory than the one that was looked over last.
func (s *Store) swapped(now time.Time) bool {
	s.identified = now
	id, err := manifest.IdentifyDir(s.path)
	return err != nil || id != s.root
}

// missing is the fault of a directory without manifests that is not the one from which the state in force was read;
// nil: its emptiness is meant.
func (s *Store) missing(names []string) *model.Fault {
	if len(names) > 0 || s.here() == s.origin {
		return nil
	}
	var was string
	switch n := len(s.tables.records); {
	case n > 0:
		was = fmt.Sprintf("the resources in force (%d) were read", n)
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
