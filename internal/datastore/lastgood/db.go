package lastgood

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/skew"
)

// The file: bucket "objects" holds every object in force under Kind/name, bucket "meta" the format and the
// version of the program that wrote it last.
const (
	dbFormat  = "1"
	dbTimeout = 2 * time.Second // how long another process may hold the file
)

var (
	bucketObjects = []byte("objects")
	bucketMeta    = []byte("meta")
	keyFormat     = []byte("format")
	keyVersion    = []byte("version")
	keyNote       = []byte("note")
)

// ErrLocked says that another process uses the state directory.
var ErrLocked = errors.New("another sallyport agent uses it")

// errCorrupt says that the file cannot be understood.
var errCorrupt = errors.New("the state file is damaged")

// open opens the file, and makes it and its directory where they are missing.
func (o *Options) open() (*bbolt.DB, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	// A loss of power may leave a file without content, which the library takes for a new one.
	st, err := os.Stat(o.path())
	missing := errors.Is(err, fs.ErrNotExist)
	if err == nil && st.Size() == 0 {
		return nil, fmt.Errorf("opening %s: %w: it is empty", o.path(), errCorrupt)
	}
	var db *bbolt.DB
	err = guard(func() (err error) {
		db, err = bbolt.Open(o.path(), 0o600, &bbolt.Options{Timeout: dbTimeout, FreelistType: bbolt.FreelistMapType})
		return err
	})
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("state directory %s: %w; stop it, or give this one another --state-dir", o.Dir, ErrLocked)
	case missing: // what a full disk has left of a new file would be taken for a damaged one
		if removeErr := os.Remove(o.path()); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
		return nil, fmt.Errorf("making %s: %w", o.path(), err)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch),
		strings.Contains(err.Error(), "file size too small"):
		return nil, fmt.Errorf("opening %s: %w: %w", o.path(), errCorrupt, err)
	default:
		return nil, fmt.Errorf("opening %s: %w", o.path(), err)
	}
}

func (o *Options) path() string { return filepath.Join(o.Dir, o.Name) }

// loaded is what a file holds.
type loaded[T any] struct {
	records []T
	note    []byte
	ok      bool // it holds a state
}

// load opens the file and loads what it holds; lost says that a state was there and is damaged. A damaged file is set aside,
// with a word in the log, and a new one begun. An error that is final means that the program must not go on;
// another one, that nothing can be saved: db is nil then, and the state is loaded all the same where the file can
// be read.
func load[T any](o *Options, decode func(datastore.Key, []byte) (T, error)) (db *bbolt.DB, l loaded[T], lost bool, err error) {
	for range 2 {
		if db, err = o.open(); err == nil {
			if l, err = read(db, o, decode); err == nil {
				_, asideErr := os.Lstat(o.path() + damagedSuffix)
				return db, l, !l.ok && asideErr == nil, nil
			}
			err = errors.Join(err, db.Close())
		}
		if final(err) {
			return nil, loaded[T]{}, false, err
		}
		if !errors.Is(err, errCorrupt) {
			l, peekErr := peek(o, decode)
			if final(peekErr) {
				err = peekErr
			}
			return nil, l, peekErr != nil && !errors.Is(peekErr, fs.ErrNotExist), err
		}
		aside := o.path() + damagedSuffix
		if renameErr := os.Rename(o.path(), aside); renameErr != nil {
			return nil, loaded[T]{}, true, errors.Join(err, renameErr)
		}
		o.Log.Error("the last good state of the resources is damaged and was set aside; until they are read without a fault there is none",
			"file", o.path(), "moved-to", aside, "error", err)
	}
	return nil, loaded[T]{}, true, err
}

// damagedSuffix follows the name of a damaged file that was set aside. There is one such file: the next takes its place.
const damagedSuffix = ".damaged"

// final says whether an error is one with which the program must not go on.
func final(err error) bool {
	var far *skew.Error
	return errors.Is(err, ErrLocked) || errors.As(err, &far)
}

// peek reads the last good state from a file that cannot be written, if it can.
func peek[T any](o *Options, decode func(datastore.Key, []byte) (T, error)) (l loaded[T], err error) {
	err = guard(func() error {
		db, err := bbolt.Open(o.path(), 0o600, &bbolt.Options{Timeout: dbTimeout, ReadOnly: true})
		if err != nil {
			return err
		}
		l, err = read(db, o, decode)
		return errors.Join(err, db.Close())
	})
	l.ok = l.ok && err == nil
	return l, err
}

// read reads the last good state.
func read[T any](db *bbolt.DB, o *Options, decode func(datastore.Key, []byte) (T, error)) (l loaded[T], err error) {
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			meta, objects := tx.Bucket(bucketMeta), tx.Bucket(bucketObjects)
			if meta == nil || objects == nil {
				return nil // made, and never written to
			}
			if err := skew.Check("the last good state in "+o.path(), string(meta.Get(keyVersion)), o.Version); err != nil {
				return fmt.Errorf("%w; or remove that file, and what is in force until the resources can be read is lost", err)
			}
			if f := string(meta.Get(keyFormat)); f != dbFormat {
				return fmt.Errorf("%w: its format is %q, not %q", errCorrupt, f, dbFormat)
			}
			l.ok, l.note = true, bytes.Clone(meta.Get(keyNote))
			return objects.ForEach(func(k, v []byte) error {
				kind, name, both := strings.Cut(string(k), "/")
				if !both {
					return fmt.Errorf("%w: entry %q", errCorrupt, k)
				}
				r, err := decode(datastore.Key{Kind: kind, Name: name}, v)
				if err != nil {
					return fmt.Errorf("%w: %w", errCorrupt, err)
				}
				l.records = append(l.records, r)
				return nil
			})
		})
	})
	if err != nil {
		return loaded[T]{}, err
	}
	return l, nil
}

// save writes changes; with anew, in place of everything that is there. A nil value is a deletion.
func save(db *bbolt.DB, version string, note []byte, changes map[datastore.Key][]byte, anew bool) error {
	return guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			meta, err := tx.CreateBucketIfNotExists(bucketMeta)
			if err != nil {
				return err
			}
			for key, value := range map[string]string{string(keyFormat): dbFormat, string(keyVersion): version, string(keyNote): string(note)} {
				if string(meta.Get([]byte(key))) != value {
					if err := meta.Put([]byte(key), []byte(value)); err != nil {
						return err
					}
				}
			}
			if anew && tx.Bucket(bucketObjects) != nil {
				if err := tx.DeleteBucket(bucketObjects); err != nil {
					return err
				}
			}
			objects, err := tx.CreateBucketIfNotExists(bucketObjects)
			if err != nil {
				return err
			}
			for k, v := range changes {
				key := []byte(k.Kind + "/" + k.Name)
				if v == nil {
					err = objects.Delete(key)
				} else {
					err = objects.Put(key, v)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// guard turns the panics with which bbolt meets damaged pages, and the faults of a mapped file that became
// shorter, into errors.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errCorrupt, p)
		}
	}()
	return f()
}
