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
// device, inode and time of birth. If that directory is emptied, by `sallyport delete` or by hand and whether or not
// an agent runs, its objects are gone. If another directory without manifests stands in its place, nothing changes,
// and that is a fault. A file with nothing but a comment is a manifest: it says that nothing is to be in force.

// identityPeriod is how often the Store looks whether its path leads to another directory. inotify does not tell of
// mounts.
const identityPeriod = 2 * time.Second

// encodeOrigin is the form of an identity in the state file.
func encodeOrigin(id manifest.DirIdentity) []byte {
	b := binary.BigEndian.AppendUint64(nil, id.Dev)
	b = binary.BigEndian.AppendUint64(b, id.Ino)
	return binary.BigEndian.AppendUint64(b, uint64(id.Birth))
}

// decodeOrigin is the zero value, which no directory has, where nothing is known.
func decodeOrigin(b []byte) manifest.DirIdentity {
	if len(b) != 24 {
		return manifest.DirIdentity{}
	}
	return manifest.DirIdentity{Dev: binary.BigEndian.Uint64(b), Ino: binary.BigEndian.Uint64(b[8:]), Birth: int64(binary.BigEndian.Uint64(b[16:]))}
}

// swapped says whether the path leads to another directory than the one that was looked over last.
func (s *Store) swapped(now time.Time) bool {
	s.identified = now
	id, err := manifest.IdentifyDir(s.path)
	return err != nil || id != s.root
}

// missing is the fault of a directory without manifests that is not the one from which the state in force was read;
// nil: its emptiness is meant.
func (s *Store) missing(names []string, id manifest.DirIdentity) *model.Fault {
	if len(names) > 0 || id == s.origin || len(s.tables.records) == 0 && !s.saver.Lost() {
		return nil
	}
	was := "the last good state, which is damaged, was read"
	if n := len(s.tables.records); n > 0 {
		was = fmt.Sprintf("the resources in force (%d) were read", n)
	}
	return &model.Fault{File: s.path, Message: fmt.Sprintf("the directory of manifests is empty, and is not the directory from which %s: a mount is "+
		"missing, or another one hides it. Mount it again; or if nothing is to be in force, write a file with only a comment, such as %s/none.yaml", was, s.path)}
}

// settle notes that what is in force was read from the directory as it stands.
func (s *Store) settle() {
	if s.origin == s.root {
		return
	}
	s.origin = s.root
	s.saver.SetNote(encodeOrigin(s.origin))
	s.saver.Add(entriesOf(nil), entries(s.tables.records))
	s.saver.Wake()
}
