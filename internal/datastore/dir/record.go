package dir

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
)

// dbName is the name of the file that keeps the last good state.
const dbName = "resources.db"

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

func decodeRecord(k Key, v []byte) (*record, error) {
	if len(v) < recordHeader {
		return nil, errors.New("the entry of " + k.String() + " is too short")
	}
	o, err := convert(Object{Key: k, JSON: bytes.Clone(v[recordHeader:])})
	if err != nil {
		return nil, err
	}
	return &record{object: o, rank: binary.BigEndian.Uint64(v[1:]), allocatable: v[0]&flagAllocatable != 0}, nil
}

// entries are records as they are kept.
func entries(records []*record) iter.Seq2[Key, []byte] {
	return func(yield func(Key, []byte) bool) {
		for _, r := range records {
			if !yield(r.Key, encodeRecord(r)) {
				return
			}
		}
	}
}

// entriesOf are changes as they are kept.
func entriesOf(changes []change) iter.Seq2[Key, []byte] {
	return func(yield func(Key, []byte) bool) {
		for _, c := range changes {
			var value []byte
			if c.record != nil {
				value = encodeRecord(c.record)
			}
			if !yield(c.key, value) {
				return
			}
		}
	}
}
