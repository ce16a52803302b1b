package bgp

import (
	"os"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// page is the documentation whose files the routers and the cluster have.
type page string

func readPage(t *testing.T) page {
	t.Helper()
	b, err := os.ReadFile("../../../docs/public-addresses.md")
	labtest.Must(t, err)
	return page(b)
}

// block is the only code block of a language that has a text.
func (p page) block(t *testing.T, language, with string) string {
	t.Helper()
	var found []string
	for _, part := range strings.Split(string(p), "\n```"+language+"\n")[1:] {
		if body, _, ok := strings.Cut(part, "\n```\n"); ok && strings.Contains(body, with) {
			found = append(found, body+"\n")
		}
	}
	if len(found) != 1 {
		t.Fatalf("docs/public-addresses.md has %d blocks of %s with %q, not one", len(found), language, with)
	}
	return found[0]
}
