package manifest

import (
	"bytes"

	kjson "sigs.k8s.io/json"

	"github.com/sallyport/sallyport/internal/yaml"
)

// decode reads the text of one document into maps, slices, strings, bools, int64 and float64. Keys that stand twice are
// errors, of type yaml.Error as all. An empty document is nil. Of YAML the tree of nodes is returned too, which may take a
// hundred times the length of the text: it must not be kept.
func decode(text []byte, isJSON bool) (any, *yaml.Node, error) {
	if isJSON {
		v, err := decodeJSON(text)
		return v, nil, err
	}
	doc, err := yaml.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	v, err := doc.Value()
	return v, doc.Root, err
}

// decodeJSON reads one JSON value.
func decodeJSON(text []byte) (any, error) {
	var v any
	strict, err := kjson.UnmarshalStrict(text, &v, kjson.DisallowDuplicateFields)
	if err != nil {
		e := &yaml.Error{Message: "not valid JSON: " + err.Error()}
		if isSyntax, offset := kjson.SyntaxErrorOffset(err); isSyntax {
			e.Line = 1 + bytes.Count(text[:min(int(offset), len(text))], []byte("\n"))
		}
		return nil, e
	}
	if len(strict) > 0 {
		return nil, &yaml.Error{Message: strict[0].Error() + ": keep one of them"}
	}
	return v, nil
}
