package manifest

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// locator finds the lines of fields in the text of one document. It parses the text anew, and only when it is
// first asked: lines matter only when something is wrong.
type locator struct {
	text []byte
	root *yaml.Node // nil: not parsed yet, or not to be parsed
	done bool
}

// line is the line, from 1, on which a field stands: of the deepest part of the path that is there, so that
// a missing field is blamed on its parent. The path is written as in spec.cidr, spec.addresses[0] or
// metadata.labels[example.com/a]. It is 0 where the text cannot be read.
func (l *locator) line(path string) int {
	if !l.done {
		l.done = true
		var doc yaml.Node
		if err := yaml.Unmarshal(l.text, &doc); err == nil && len(doc.Content) > 0 {
			l.root = doc.Content[0]
		}
	}
	if l.root == nil {
		return 0
	}
	node, line := l.root, l.root.Line
	for _, step := range steps(path) {
		for node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		key, value := child(node, step)
		if value == nil {
			break
		}
		node, line = value, key.Line
	}
	return line
}

// child is an entry of a mapping or sequence, as the node to blame and the node to go on with.
func child(node *yaml.Node, step string) (key, value *yaml.Node) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == step {
				return node.Content[i], node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i]
		}
	}
	return nil, nil
}

// steps takes a field path apart: "a.b[0][c.d]" is a, b, 0, c.d.
func steps(path string) []string {
	var out []string
	for path != "" {
		if rest, ok := strings.CutPrefix(path, "["); ok {
			key, after, _ := strings.Cut(rest, "]")
			out = append(out, strings.Trim(key, `"'`))
			path = after
			continue
		}
		path = strings.TrimPrefix(path, ".")
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		if end > 0 {
			out = append(out, path[:end])
		} else if path != "" && path[0] == '.' {
			path = path[1:] // "a..b": an empty step says nothing
		}
		path = path[end:]
	}
	return out
}
