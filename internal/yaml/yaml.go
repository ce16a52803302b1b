// Package yaml reads and writes YAML as kubectl and the API server do: by the rules of YAML 1.1, in which yes is true and
// 0777 is 511, and with the values that JSON has.
//
// It is the one place that uses a YAML library. That library, go.yaml.in/yaml/v3, makes the tree of nodes with the place of
// each; version 2, by which kubectl reads, has none to give. What a scalar means this package decides itself (scalar.go),
// as version 2 would. It refuses what cannot be said in JSON, keys that stand twice, and more than one document; its
// memory is bounded by the length of the text, whatever aliases repeat.
package yaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
)

// Node is a node of a tree, with its place in the text: Line and Column count from 1, the column in characters.
type Node = yaml.Node

// The kinds and styles of nodes.
const (
	MappingNode  = yaml.MappingNode
	SequenceNode = yaml.SequenceNode
	ScalarNode   = yaml.ScalarNode
	AliasNode    = yaml.AliasNode

	FlowStyle         = yaml.FlowStyle
	LiteralStyle      = yaml.LiteralStyle
	FoldedStyle       = yaml.FoldedStyle
	SingleQuotedStyle = yaml.SingleQuotedStyle
	DoubleQuotedStyle = yaml.DoubleQuotedStyle
	TaggedStyle       = yaml.TaggedStyle
)

// Error is a text that cannot be read.
type Error struct {
	Line    int // from 1; 0 where it is not known
	Message string
}

func (e *Error) Error() string { return e.Message }

func faultf(line int, format string, args ...any) error {
	return &Error{line, fmt.Sprintf(format, args...)}
}

// Document is one document, parsed. It is not safe for concurrent use.
type Document struct {
	Root *Node // nil: it is empty
	node *Node // of the document itself, which has the comments before and behind the root
	text []byte

	marked map[*Node]bool // scalars behind the tag "!"; nil: not looked for so far
}

// Commented says whether there may be comments. The library keeps none behind a brace or bracket, so that a "#" in the
// text that no scalar has counts as one.
func (d *Document) Commented() bool {
	return commented(d.node) || bytes.Count(d.text, []byte("#")) > hashes(d.node)
}

func hashes(n *Node) int {
	out := strings.Count(n.Value, "#")
	for _, child := range n.Content {
		out += hashes(child)
	}
	return out
}

func commented(n *Node) bool {
	return n.HeadComment+n.LineComment+n.FootComment != "" || slices.ContainsFunc(n.Content, commented)
}

// Parse reads the text of one document. Its errors are of type Error.
func Parse(text []byte) (*Document, error) {
	if bytes.HasPrefix(text, []byte("%")) {
		return nil, faultf(1, "YAML directives are not supported: remove the line")
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	switch err := next(dec, &doc); {
	case errors.Is(err, io.EOF):
		return &Document{node: &doc, text: text}, nil
	case err != nil:
		return nil, syntaxError(err, text)
	}
	// What is taken for one document must be one: text that nobody reads would be a silent loss.
	var another *yaml.TypeError // whatever it is
	switch err := next(dec, &struct{}{}); {
	case err == nil || errors.As(err, &another):
		return nil, faultf(1, `holds more than one YAML document: put "---" on a line of its own, ended by a newline, between them`)
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(err, text)
	}
	d := &Document{node: &doc, text: text}
	if len(doc.Content) > 0 {
		d.Root = doc.Content[0]
	}
	return d, nil
}

// next reads the next document. The library panics where it meets its own faults; a file must not end the agent.
func next(dec *yaml.Decoder, doc any) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("yaml: the parser failed: %v", v)
		}
	}()
	return dec.Decode(doc)
}

// Decode reads the text of one document into maps, slices, strings, bools, int64 and float64; nil: it is empty.
func Decode(text []byte) (any, error) {
	d, err := Parse(text)
	if err != nil {
		return nil, err
	}
	return d.Value()
}

// Unmarshal reads the text of one document into what v points to, as its JSON would be read.
func Unmarshal(text []byte, v any) error {
	_, err := unmarshal(text, v)
	return err
}

// UnmarshalStrict does so and refuses fields that v does not have.
func UnmarshalStrict(text []byte, v any) error {
	strict, err := unmarshal(text, v)
	return errors.Join(append(strict, err)...)
}

func unmarshal(text []byte, v any) (strict []error, err error) {
	value, err := Decode(text)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return kjson.UnmarshalStrict(data, v)
}

var linePrefix = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

// tabIndent is a line that begins with a tab where YAML wants blanks.
var tabIndent = regexp.MustCompile(`(?m)^ *\t+[^\s#]`)

// syntaxError takes the line out of what the library says of a text.
func syntaxError(err error, text []byte) error {
	said := err.Error()
	m := linePrefix.FindStringSubmatch(said)
	what := strings.TrimPrefix(said, m[0])
	e := &Error{Message: "not valid YAML: " + what}
	e.Line, _ = strconv.Atoi(m[1])
	if e.Line > 0 && (strings.HasPrefix(what, "did not find expected") || strings.HasPrefix(what, "found undefined tag")) {
		e.Line++ // the library counts from 0 where its parser, not its scanner, finds the fault
	}
	if strings.Contains(e.Message, "cannot start any token") && tabIndent.Match(text) {
		e.Message += ": indent with spaces, not with tabs"
	}
	return e
}
