package manifest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v2"
	kjson "sigs.k8s.io/json"
)

// syntaxError is a document that cannot be read at all.
type syntaxError struct {
	line int // from 1, within the text; 0 where it is not known
	msg  string
}

func (e *syntaxError) Error() string { return e.msg }

// decode reads the text of one document into maps, slices, strings, bools, int64 and float64. Keys that
// stand twice are errors. An empty document is nil.
//
// YAML is read by version 2 of the library, since kubectl and the API server read it so: "yes" is true, and a
// manifest means the same here as there.
func decode(text []byte, isJSON bool) (any, error) {
	if isJSON {
		return decodeJSON(text)
	}
	if text[0] == '%' {
		return nil, &syntaxError{line: 1, msg: "YAML directives are not supported: remove the line"}
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.SetStrict(true)
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, yamlError(err, text)
	}
	// What the splitter took for one document must be one: text that nobody reads would be a silent loss.
	var rest any
	if err := dec.Decode(&rest); err == nil {
		return nil, &syntaxError{line: 1, msg: `holds more than one YAML document: put "---" on a line of its own, ended by a newline, between them`}
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlError(err, text)
	}
	return plain(v)
}

// decodeJSON reads one JSON value.
func decodeJSON(text []byte) (any, error) {
	var v any
	strict, err := kjson.UnmarshalStrict(text, &v, kjson.DisallowDuplicateFields)
	if err != nil {
		e := &syntaxError{msg: "not valid JSON: " + err.Error()}
		if isSyntax, offset := kjson.SyntaxErrorOffset(err); isSyntax {
			e.line = 1 + bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))
		}
		return nil, e
	}
	if len(strict) > 0 {
		return nil, &syntaxError{msg: strict[0].Error() + ": keep one of them"}
	}
	return v, nil
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s*)?(?:line (\d+): )?`)

// tabIndent is a line that begins with a tab where YAML wants blanks.
var tabIndent = regexp.MustCompile(`(?m)^ *\t+[^\s#]`)

// yamlError takes the line out of what the library says of a text.
func yamlError(err error, text []byte) error {
	said := err.Error()
	m := yamlLine.FindStringSubmatch(said)
	e := &syntaxError{msg: strings.TrimPrefix(said, m[0])}
	e.msg, _, _ = strings.Cut(e.msg, "\n") // one fault is enough to mend
	e.line, _ = strconv.Atoi(m[1])
	if strings.Contains(e.msg, "already set in map") {
		e.msg += ": keep one of them"
	} else {
		e.msg = "not valid YAML: " + e.msg
	}
	if strings.Contains(e.msg, "cannot start any token") && tabIndent.Match(text) {
		e.msg += ": indent with spaces, not with tabs"
	}
	return e
}

// maxValues is how many bytes the values and keys of one document may come to. Aliases let a text of a few KB stand for
// gigabytes; what no alias repeats is shorter than its text.
const maxValues = 4 * MaxDocumentSize

// plain turns what the YAML library yields into what JSON would have yielded.
func plain(v any) (any, error) {
	w := plainer{left: maxValues}
	out, err := w.plain(v)
	var e *placedError
	if errors.As(err, &e) {
		return nil, &syntaxError{msg: cmp.Or(strings.TrimPrefix(e.path, "."), "the document") + ": " + e.msg}
	}
	return out, err
}

// placedError is a fault at a path, such as .spec.cidr, which is put together on the way out.
type placedError struct{ path, msg string }

func (e *placedError) Error() string { return e.path + ": " + e.msg }

// under puts a step before the path of a fault.
func under(step string, err error) error {
	var e *placedError
	if errors.As(err, &e) {
		if len(e.path) > longestPath {
			return &placedError{"…" + strings.TrimPrefix(e.path, "…"), e.msg}
		}
		return &placedError{step + e.path, e.msg}
	}
	return err
}

// longestPath bounds the path of a fault; steps before that are left out.
const longestPath = 1024

type plainer struct{ left int } // bytes

// take counts bytes.
func (w *plainer) take(n int) error {
	if w.left -= n; w.left < 0 {
		return &syntaxError{msg: fmt.Sprintf("stands for more than %d bytes, since aliases repeat long values: write them out, in several documents", maxValues)}
	}
	return nil
}

func (w *plainer) plain(v any) (any, error) {
	switch v := v.(type) {
	case map[any]any:
		return w.mapping(v)
	case []any:
		out := make([]any, len(v)) // aliases may share v, which must not be turned twice
		for i := range v {
			if err := w.take(1); err != nil {
				return nil, err
			}
			item, err := w.plain(v[i])
			if err != nil {
				return nil, under("["+strconv.Itoa(i)+"]", err)
			}
			out[i] = item
		}
		return out, nil
	case string:
		return v, w.take(len(v))
	case int:
		return int64(v), nil
	case uint64:
		return float64(v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, &placedError{msg: fmt.Sprintf("%v is not a number that JSON can hold", v)}
		}
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), nil // as its JSON would be read
		}
		return v, nil
	default:
		return v, nil
	}
}

func (w *plainer) mapping(v map[any]any) (any, error) {
	out := make(map[string]any, len(v))
	for k, value := range v {
		key, err := plainKey(k)
		if err != nil {
			return nil, err
		}
		if err := w.take(len(key) + 1); err != nil {
			return nil, err
		}
		if _, twice := out[key]; twice {
			return nil, &placedError{msg: fmt.Sprintf("key %q stands twice: keep one of them", key)}
		}
		if out[key], err = w.plain(value); err != nil {
			return nil, under("."+key, err)
		}
	}
	return out, nil
}

// plainKey makes a key a string, as kubectl does.
func plainKey(k any) (string, error) {
	switch k := k.(type) {
	case string:
		return k, nil
	case bool, int, int64:
		return fmt.Sprint(k), nil
	default:
		return "", &syntaxError{msg: fmt.Sprintf("%v cannot be a key: put it in quotes", k)}
	}
}
