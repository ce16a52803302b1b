package manifest

import (
	"bytes"
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
	return plain(v, "")
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

// plain turns what the YAML library yields into what JSON would have yielded.
func plain(v any, path string) (any, error) {
	switch v := v.(type) {
	case map[any]any:
		out := make(map[string]any, len(v))
		for k, value := range v {
			key, err := plainKey(k)
			if err != nil {
				return nil, err
			}
			if _, twice := out[key]; twice {
				return nil, &syntaxError{msg: fmt.Sprintf("%s: key %q stands twice: keep one of them", orRoot(path), key)}
			}
			if out[key], err = plain(value, path+"."+key); err != nil {
				return nil, err
			}
		}
		return out, nil
	case []any:
		for i := range v {
			item, err := plain(v[i], path+"["+strconv.Itoa(i)+"]")
			if err != nil {
				return nil, err
			}
			v[i] = item
		}
		return v, nil
	case int:
		return int64(v), nil
	case uint64:
		return float64(v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, &syntaxError{msg: fmt.Sprintf("%s: %v is not a number that JSON can hold", orRoot(path), v)}
		}
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), nil // as its JSON would be read
		}
		return v, nil
	default:
		return v, nil
	}
}

func orRoot(path string) string {
	if path == "" {
		return "the document"
	}
	return strings.TrimPrefix(path, ".")
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
