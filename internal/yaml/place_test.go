package yaml

import (
	"fmt"
	"strings"
	"testing"
)

// A line of 1.5 MiB may hold a million nodes: to count the characters before each of them takes an hour.
func TestPlacesInOrderAreOneWalk(t *testing.T) {
	t.Parallel()
	p := PlacesOf([]byte("x\nä: [b, c]\n"))
	at := func(column int) int { return p.Offset(&Node{Line: 2, Column: column}) }
	if got := [...]int{at(1), at(5), at(8), at(1)}; got != [...]int{2, 7, 10, 2} {
		t.Errorf("offsets %v", got)
	}
	at(5)
	p.lines[1] = -1000 // where no walk may begin
	if got := at(8); got != 10 {
		t.Errorf("offset %d", got)
	}
}

// Each scalar is looked at once, however often aliases repeat it.
func TestTagsOnOneLine(t *testing.T) {
	t.Parallel()
	const n = 20_000
	v, err := Decode([]byte("a: &a [! 1" + strings.Repeat(", ! 2, 3", n) + "]\nb: *a\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b"} {
		list := v.(map[string]any)[key].([]any)
		if got := fmt.Sprintf("%T %T %T", list[0], list[2*n-1], list[2*n]); got != "string string int64" {
			t.Errorf("%s: %s", key, got)
		}
	}
}

// An edit asks for each key of a document by itself.
func TestTagsAreLookedForOnce(t *testing.T) {
	t.Parallel()
	d, err := Parse([]byte("! 1: a\n! yes: b\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []int{0, 2} {
		if name, ok := d.Key(d.Root.Content[key]); !ok || name != []string{"1", "", "yes"}[key] {
			t.Errorf("%q, %t", name, ok)
		}
		d.text = nil
	}
}
