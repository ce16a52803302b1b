package manifest

import (
	"fmt"
	"strings"
	"testing"
)

// TestAliasesThatRepeatLongValues: a text of 72 KB stood for 400 MB. Not parallel: it counts what the process allocates.
func TestAliasesThatRepeatLongValues(t *testing.T) {
	text := "note: &a \"" + strings.Repeat("x", 36_000) + "\"\nb: [" + strings.Repeat("*a,", 12_000) + "]\n"
	var err error
	took := allocated(func() { _, _, err = decode([]byte(text), false) })
	if err == nil || !strings.Contains(err.Error(), "aliases") {
		t.Errorf("decoding says %v", err)
	}
	if took > 100<<20 {
		t.Errorf("refusing it took %d bytes of memory", took)
	}
}

// TestDeepKeys: paths to values that nobody asked for came to gigabytes. Not parallel, likewise.
func TestDeepKeys(t *testing.T) {
	const deep = 5000
	var text strings.Builder
	for i := range deep {
		fmt.Fprintf(&text, "{%s%d: ", strings.Repeat("k", 100), i)
	}
	text.WriteString(".nan" + strings.Repeat("}", deep))
	var err error
	took := allocated(func() { _, _, err = decode([]byte(text.String()), false) })
	if err == nil || !strings.Contains(err.Error(), "is not a number") || len(err.Error()) > 1024 {
		t.Errorf("decoding says %.200v", err)
	}
	if took > 200<<20 {
		t.Errorf("it took %d bytes of memory", took)
	}
}

// TestSharedValues: what an anchor names is read alike wherever an alias repeats it.
func TestSharedValues(t *testing.T) {
	t.Parallel()
	v, _, err := decode([]byte("a: &x [1, {b: 2}]\nc: *x\n"), false)
	if got := fmt.Sprint(v); err != nil || got != "map[a:[1 map[b:2]] c:[1 map[b:2]]]" {
		t.Errorf("%s, %v", got, err)
	}
}
