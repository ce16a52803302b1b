package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxDocuments bounds the documents of one file.
const maxDocuments = 1 << 17

// errTooManyDocuments says that a file holds more than maxDocuments.
var errTooManyDocuments = fmt.Errorf("more than %d documents in one file: spread them over several files", maxDocuments)

// document is one document of a file, as byte offsets into it. Documents that hold nothing but comments
// are none.
type document struct {
	start, end int // with its separators, up to where the next document starts
	body       int // first byte of its content
	bodyEnd    int // after the last byte of its content, without the line break and comments that follow
	stop       int // where the parser must stop: before a "..." line or the end
	line       int // the line of body, from 1
	json       bool
	item       bool // of a List: it begins with a dash
}

// text is what the parser gets to see.
func (d *document) text(data []byte) []byte {
	text := data[d.body:d.stop]
	if d.item {
		text = bytes.Clone(text)
		text[bytes.IndexByte(text, '-')] = ' '
	}
	return text
}

// split finds the documents of a file. A file that begins with a brace is read as JSON values one after
// the other when it is that, as kubectl does; everything else is YAML.
func split(data []byte) ([]document, error) {
	if first := bytes.TrimLeft(data, " \t\r\n"); len(first) > 0 && first[0] == '{' {
		docs, err := splitJSON(data)
		if err == nil || errors.Is(err, errTooManyDocuments) {
			return docs, err
		}
	}
	return splitYAML(data)
}

// splitJSON finds JSON values that stand one after the other.
func splitJSON(data []byte) ([]document, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	var docs []document
	line, counted := 1, 0
	for {
		start := int(dec.InputOffset())
		var v json.RawMessage
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if len(docs) == maxDocuments {
			return nil, errTooManyDocuments
		}
		end := int(dec.InputOffset())
		body := end - len(bytes.TrimLeft(data[start:end], " \t\r\n"))
		line += bytes.Count(data[counted:body], []byte("\n"))
		counted = body
		docs = append(docs, document{start: start, end: end, body: body, bodyEnd: end, stop: end, line: line, json: true})
	}
	if len(docs) > 0 {
		docs[len(docs)-1].end = len(data)
	}
	return docs, nil
}

// utf8BOM is the byte order mark with which some editors begin a file.
var utf8BOM = []byte("\xef\xbb\xbf")

// splitYAML finds the documents of a YAML stream by their markers: "---" at the start of a line begins a
// document, "..." ends one (YAML 1.1, section 9.1.4; neither can stand inside a scalar).
func splitYAML(data []byte) ([]document, error) {
	s := yamlSplitter{data: data}
	off := 0
	if bytes.HasPrefix(data, utf8BOM) {
		off = len(utf8BOM)
	}
	s.open(off)
	for line := 1; off < len(data); line++ {
		next := len(data)
		if i := bytes.IndexByte(data[off:], '\n'); i >= 0 {
			next = off + i + 1
		}
		s.line(off, next, line)
		if len(s.docs) > maxDocuments {
			return nil, errTooManyDocuments
		}
		off = next
	}
	s.close(len(data), len(data))
	return s.docs, nil
}

// yamlSplitter collects documents line by line.
type yamlSplitter struct {
	data []byte
	docs []document
	cur  document // cur.body < 0: no content yet
}

func (s *yamlSplitter) open(start int) { s.cur = document{start: start, body: -1} }

// close ends the current document before stop; the next one starts at end.
func (s *yamlSplitter) close(stop, end int) {
	if s.cur.body < 0 {
		return
	}
	s.cur.stop, s.cur.end = stop, end
	s.docs = append(s.docs, s.cur)
}

// line takes the line data[off:next].
func (s *yamlSplitter) line(off, next, number int) {
	switch text := s.data[off:next]; {
	case isMarker(text, "---"):
		s.close(off, off)
		s.open(off)
		s.content(off+3, next, number, true)
	case isMarker(text, "..."):
		s.close(off, next)
		s.open(next)
	default:
		s.content(off, next, number, false)
	}
}

// content notes what data[off:next] adds to the body of the current document. A comment at the start of a
// line is not part of the body, so that an edit leaves it; one that is indented after content is, since it may
// be text of a block scalar.
func (s *yamlSplitter) content(off, next, number int, afterMarker bool) {
	text := bytes.TrimRight(s.data[off:next], " \t\r\n")
	trimmed := bytes.TrimLeft(text, " \t")
	if len(trimmed) == 0 || text[0] == '#' {
		return
	}
	if s.cur.body < 0 {
		if trimmed[0] == '#' {
			return
		}
		s.cur.body, s.cur.line = off, number
		if afterMarker {
			s.cur.body = off + len(text) - len(trimmed)
		}
	}
	s.cur.bodyEnd = off + len(text)
}

// isMarker says whether a line is the given document marker, with or without something after it.
func isMarker(line []byte, marker string) bool {
	if !bytes.HasPrefix(line, []byte(marker)) {
		return false
	}
	return len(line) == len(marker) || bytes.IndexByte([]byte(" \t\r\n"), line[len(marker)]) >= 0
}
