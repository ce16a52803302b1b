package manifest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkRead reads 10,000 pools, in one file, in a file each, and with comments at every line; and 2,000 of which each is
// validated.
func BenchmarkRead(b *testing.B) {
	text := func(i int) string {
		return pool(fmt.Sprintf("p%d", i), fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), "natOutgoing: true")
	}
	var many [][]byte
	for i := range 10_000 {
		many = append(many, []byte(text(i)))
	}
	all := bytes.Join(many, []byte("---\n"))
	commented := []byte(strings.ReplaceAll(string(all), "\n  ", " # why\n  # and so\n  "))
	read := func(name string, n int, parse func() int) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if got := parse(); got != n {
					b.Fatalf("%d objects without a fault", got)
				}
			}
		})
	}
	read("one file", len(many), func() int { return len(Parse("f", all).Objects) })
	read("many files", len(many), func() (n int) {
		for _, data := range many {
			n += len(Parse("f", data).Objects)
		}
		return n
	})
	read("comments", len(many), func() int { return len(Parse("f", commented).Objects) })
	some := bytes.Join(many[:2000], []byte("---\n"))
	v := validator()
	read("validated", 2000, func() int {
		p := Check("f", some, nil, v, func(Key) *Object { return nil })
		return len(p.Objects) - len(p.Faults)
	})
}
