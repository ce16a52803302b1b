package cli

import (
	"encoding"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/verify"
)

// TestJSONIsDocumented compares the fields that are printed with those in the reference, both ways: what a script
// reads must not change unnoticed.
func TestJSONIsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/reference/json.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		name, rest, _ := strings.Cut(section, "\n")
		for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*) \\|").FindAllStringSubmatch(rest, -1) {
			for _, field := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(row[1], -1) {
				documented[name] = append(documented[name], field[1])
			}
		}
	}
	for name, v := range map[string]any{"status": agent.Status{}, "status without an answer": unanswered{}, "flows": agent.Flow{}, "ipam show": agent.IPAMResponse{}, "bgp": agent.BGPResponse{}, "explain": explanation{}, "validate": []validateFault{}, "run --dry-run": nftables.Preview{}, "verify from": verify.Report{}} {
		leaves, inner := jsonFields(reflect.TypeOf(v), "", map[reflect.Type]bool{})
		for _, f := range leaves {
			if !slices.Contains(documented[name], f) {
				t.Errorf("%s: docs/reference/json.md has nothing of the field %s", name, f)
			}
		}
		for _, f := range documented[name] {
			if !slices.Contains(leaves, f) && !slices.Contains(inner, f) {
				t.Errorf("%s: docs/reference/json.md has the field %s, which is not printed", name, f)
			}
		}
	}
}

// jsonFields are the paths of a type's fields: those that hold values, or a structure that was listed before, and
// those that hold others.
func jsonFields(t reflect.Type, path string, seen map[reflect.Type]bool) (leaves, inner []string) {
	switch {
	case t.Kind() == reflect.Pointer:
		return jsonFields(t.Elem(), path, seen)
	case t.Kind() == reflect.Slice:
		return jsonFields(t.Elem(), path+"[]", seen)
	case t.Kind() != reflect.Struct || seen[t] || t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return []string{path}, nil
	}
	seen[t] = true
	if path != "" {
		inner = append(inner, path)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		below := strings.TrimPrefix(path+"."+name, ".")
		if name == "-" {
			continue
		}
		if f.Anonymous && name == "" {
			below = path
		}
		l, in := jsonFields(f.Type, below, seen)
		leaves, inner = append(leaves, l...), append(inner, in...)
	}
	return leaves, inner
}
