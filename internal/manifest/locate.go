package manifest

import (
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/internal/yaml"
)

// located is the tree of the document of which a line was asked last. Lines matter only when something is wrong, and
// faults come document by document; a tree may take a hundred times the length of its text, so that there is one at most.
type located struct {
	file *File
	doc  int
	root *yaml.Node // nil: the text cannot be read
}

// tree is the tree of a document of a file.
func (l *located) tree(p *File, doc int) *yaml.Node {
	if l.file == p && l.doc == doc {
		return l.root
	}
	*l = located{}                                // free before the next one is made
	d, err := yaml.Parse(p.doc(doc).text(p.data)) // JSON is YAML as well
	*l = located{file: p, doc: doc}
	if err == nil {
		l.root = d.Root
	}
	return l.root
}

// lineOf is the line, from 1, on which a field stands: of the deepest part of the path that is there, so that a missing
// field is blamed on its parent. The path is written as in spec.cidr, spec.addresses[0] or metadata.labels[example.com/a].
// It is 0 where there is no tree.
func lineOf(root *yaml.Node, path string) int {
	if root == nil {
		return 0
	}
	node, line := root, root.Line
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
