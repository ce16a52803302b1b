package yaml

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"

	"github.com/sallyport/sallyport/internal/text"
)

// Layout is how a text is indented. The zero value is kubectl's: two blanks a level, and a list below its key not at all.
type Layout struct {
	Hanging int // blanks a level, lists too; 0: as kubectl
}

// Encode writes what has a JSON form as a document of its own, keys sorted. A text that a terminal would obey is
// escaped.
func Encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	var plain any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &plain); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return EncodeNode(ToNode(plain), Layout{})
}

// EncodeNode writes a tree that ToNode made.
func EncodeNode(n *Node, l Layout) (_ []byte, err error) {
	defer func() { // the library panics where it meets its own faults
		if v := recover(); v != nil {
			err = fmt.Errorf("writing YAML: %v", v)
		}
	}()
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	if l.Hanging > 0 {
		enc.SetIndent(l.Hanging)
	} else {
		enc.SetIndent(2)
		enc.CompactSeqIndent()
	}
	if err := enc.Encode(n); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	// Such a character stands only in double quotes here, where YAML has the escape of JSON.
	return []byte(text.Show(out.String())), nil
}

// ToNode is the tree of a value that consists of maps, slices, strings, bools, int64, float64 and nil.
func ToNode(v any) *Node {
	switch v := v.(type) {
	case map[string]any:
		n := &Node{Kind: MappingNode}
		if len(v) == 0 {
			n.Style = FlowStyle
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			n.Content = append(n.Content, stringNode(k), ToNode(v[k]))
		}
		return n
	case []any:
		n := &Node{Kind: SequenceNode}
		if len(v) == 0 {
			n.Style = FlowStyle
		}
		for _, item := range v {
			n.Content = append(n.Content, ToNode(item))
		}
		return n
	case string:
		return stringNode(v)
	case bool:
		return &Node{Kind: ScalarNode, Value: strconv.FormatBool(v)}
	case int64:
		return &Node{Kind: ScalarNode, Value: strconv.FormatInt(v, 10)}
	case float64:
		data, _ := json.Marshal(v) // finite, as all that JSON holds
		return &Node{Kind: ScalarNode, Value: string(data)}
	default:
		return &Node{Kind: ScalarNode, Value: "null"}
	}
}

// sexagesimal is what other readers of YAML 1.1 take for a number of base 60.
var sexagesimal = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?$`)

// stringNode is a text in the style in which every reader takes it for that text.
func stringNode(s string) *Node {
	n := &Node{Kind: ScalarNode, Tag: strTag, Value: s}
	_, tag := plain(s)
	switch {
	case strings.ContainsFunc(s, unsafe) || !utf8.ValidString(s):
		n.Style = DoubleQuotedStyle
	case strings.Contains(s, "\n"):
		n.Style = DoubleQuotedStyle
		if literal.MatchString(s) {
			n.Style = LiteralStyle
		}
	case tag != strTag || s == "<<" || s == "=" || sexagesimal.MatchString(s):
		n.Style = DoubleQuotedStyle
	}
	return n
}

// literal is a text of several lines that a block can hold without a doubt: no line begins or ends with a blank, and the
// first and the last are not empty.
var literal = regexp.MustCompile(`^\S(.*\S)?(\n+\S(.*\S)?)*\n?$`)

// unsafe says whether a character must be escaped.
func unsafe(r rune) bool {
	return r != '\n' && text.Obeyed(r) || r == '\ufeff' || r == utf8.RuneError || r == '\t'
}
