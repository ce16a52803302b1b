package dir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The state file: bucket "objects" holds every object in force under Kind/name, bucket "meta" the format.
const (
	dbName    = "resources.db"
	dbFormat  = "1"
	dbTimeout = 2 * time.Second // how long another process may hold the file
)

var (
	bucketObjects = []byte("objects")
	bucketMeta    = []byte("meta")
	keyFormat     = []byte("format")
)

// errLocked says that another process uses the state directory.
var errLocked = errors.New("another sallyport agent uses it")

// errCorrupt says that the state file cannot be understood.
var errCorrupt = errors.New("the state file is damaged")

// openDB opens the state file, and makes it and its directory where they are missing.
func openDB(stateDir string) (*bbolt.DB, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	path := filepath.Join(stateDir, dbName)
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: dbTimeout, FreelistType: bbolt.FreelistMapType})
		return err
	})
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("state directory %s: %w; stop it, or give this one another --state-dir", stateDir, errLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch),
		strings.Contains(err.Error(), "file size too small"):
		return nil, fmt.Errorf("opening %s: %w: %w", path, errCorrupt, err)
	default:
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
}

// openState opens the state file and loads the last good state; ok is false where there is none. A damaged
// file is set aside, with a word in the log, and a new one begun. An error that is not errLocked means that
// nothing can be saved; db is nil then, and the state is loaded all the same where the file can be read.
func openState(stateDir string, log *slog.Logger) (db *bbolt.DB, records []*record, ok bool, err error) {
	for range 2 {
		if db, err = openDB(stateDir); err == nil {
			if records, ok, err = loadDB(db); err == nil {
				return db, records, ok, nil
			}
			err = errors.Join(err, db.Close())
		}
		if errors.Is(err, errLocked) {
			return nil, nil, false, err
		}
		if !errors.Is(err, errCorrupt) {
			records, ok = peekDB(stateDir)
			return nil, records, ok, err
		}
		path := filepath.Join(stateDir, dbName)
		aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000")
		if renameErr := os.Rename(path, aside); renameErr != nil {
			return nil, nil, false, errors.Join(err, renameErr)
		}
		log.Error("the last good state of the resources is damaged and was set aside; until the directory of manifests is read without a fault there is none",
			"file", path, "moved-to", aside, "error", err)
	}
	return nil, nil, false, err
}

// peekDB reads the last good state from a file that cannot be written, if it can.
func peekDB(stateDir string) (records []*record, ok bool) {
	path := filepath.Join(stateDir, dbName)
	err := guard(func() error {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: dbTimeout, ReadOnly: true})
		if err != nil {
			return err
		}
		records, ok, err = loadDB(db)
		return errors.Join(err, db.Close())
	})
	return records, ok && err == nil
}

// loadDB reads the last good state.
func loadDB(db *bbolt.DB) (records []*record, ok bool, err error) {
	err = guard(func() error {
		return db.View(func(tx *bbolt.Tx) error {
			meta, objects := tx.Bucket(bucketMeta), tx.Bucket(bucketObjects)
			if meta == nil || objects == nil {
				return nil // made, and never written to
			}
			if f := string(meta.Get(keyFormat)); f != dbFormat {
				return fmt.Errorf("%w: its format is %q, not %q", errCorrupt, f, dbFormat)
			}
			ok = true
			return objects.ForEach(func(k, v []byte) error {
				r, err := decodeRecord(k, v)
				records = append(records, r)
				return err
			})
		})
	})
	if err != nil {
		return nil, false, err
	}
	return records, ok, nil
}

// saveDB writes changes; with anew, in place of everything that is there.
func saveDB(db *bbolt.DB, changes map[Key]*record, anew bool) error {
	return guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			meta, err := tx.CreateBucketIfNotExists(bucketMeta)
			if err != nil {
				return err
			}
			if !bytes.Equal(meta.Get(keyFormat), []byte(dbFormat)) {
				if err := meta.Put(keyFormat, []byte(dbFormat)); err != nil {
					return err
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
			for k, r := range changes {
				key := []byte(k.Kind + "/" + k.Name)
				if r == nil {
					err = objects.Delete(key)
				} else {
					err = objects.Put(key, encodeRecord(r))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// A record is kept as one byte of flags, eight of rank (big endian) and the object's JSON.
const (
	flagAllocatable = 1 << 0
	recordHeader    = 9
)

func encodeRecord(r *record) []byte {
	out := make([]byte, recordHeader, recordHeader+len(r.JSON))
	if r.allocatable {
		out[0] = flagAllocatable
	}
	binary.BigEndian.PutUint64(out[1:], r.rank)
	return append(out, r.JSON...)
}

func decodeRecord(k, v []byte) (*record, error) {
	kind, name, ok := strings.Cut(string(k), "/")
	if !ok || len(v) < recordHeader {
		return nil, fmt.Errorf("%w: entry %q", errCorrupt, k)
	}
	o, err := convert(Object{Key: Key{kind, name}, JSON: bytes.Clone(v[recordHeader:])})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return &record{object: o, rank: binary.BigEndian.Uint64(v[1:]), allocatable: v[0]&flagAllocatable != 0}, nil
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
