package convert

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/yaml"
)

// Document is one decoded document of the input.
type Document struct {
	File  string                 // its path; "-" for standard input
	Value any                    // as JSON would be decoded
	Line  func(field string) int // the line on which a field stands, or 0; may be nil
}

// Manifest is a resource, and what a reader should know of it.
type Manifest struct {
	Comment string // one paragraph, without "#"; may be empty
	Object  map[string]any
	Source  *Document // what it is taken from unchanged; nil where it is made anew
}

// Result is what a conversion comes to.
type Result struct {
	From      string // the program that it was configured for
	Manifests []Manifest
	Notes     []model.Fault // what has no equivalent or differs, why, and what to do
}

// YAML renders the manifests as one stream of documents, with the notes as a comment at its beginning.
func (r *Result) YAML() ([]byte, error) {
	var out bytes.Buffer
	comment(&out, "", fmt.Sprintf("Converted from the configuration of %s.", r.From))
	if len(r.Notes) > 0 {
		out.WriteString("#\n# What has no equivalent, or differs:\n")
	}
	for _, n := range r.Notes {
		n.File, n.Line = "", 0
		out.WriteString("#\n")
		comment(&out, "- ", n.String())
	}
	for i, m := range r.Manifests {
		text, err := yaml.Encode(m.Object)
		if err != nil {
			return nil, fmt.Errorf("writing manifest %d: %w", i, err)
		}
		out.WriteString("---\n")
		comment(&out, "", m.Comment)
		out.Write(text)
	}
	return out.Bytes(), nil
}

// comment writes a paragraph as lines of a comment, the first with a mark. What could end a comment, or is not
// allowed in YAML, is replaced: parts of the text are not ours.
func comment(out *bytes.Buffer, mark, text string) {
	const width = 110
	indent := "# " + mark
	line := indent
	for _, word := range strings.Fields(text) {
		word = strings.Map(func(r rune) rune {
			if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
				return '?'
			}
			return r
		}, word)
		if len(line)+len(word) > width && line != indent {
			out.WriteString(strings.TrimRight(line, " ") + "\n")
			indent = "# " + strings.Repeat(" ", len(mark))
			line = indent
		}
		line += word + " "
	}
	if line != indent {
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// place is an object of the input, or a part of one, that faults and notes name.
type place struct {
	doc        *Document
	kind, name string
	within     string // path of the part, with "." at its end; "" for the whole
}

// says is a fault or note about a field.
func (p place) says(field, format string, args ...any) model.Fault {
	f := model.Fault{Kind: p.kind, Name: p.name, Field: strings.TrimSuffix(p.within+field, "."), Message: fmt.Sprintf(format, args...)}
	if p.doc != nil {
		f.File = p.doc.File
		if p.doc.Line != nil {
			f.Line = p.doc.Line(f.Field)
		}
	}
	return f
}

// pool is the manifest of a pool.
func pool(name, comment string, spec map[string]any) Manifest {
	return manifest("projectcalico.org/v3", "IPPool", name, comment, spec)
}

// configuration is the manifest of a NATConfiguration.
func configuration(name, comment string, spec map[string]any) Manifest {
	return manifest("sallyport.dev/v1alpha1", "NATConfiguration", name, comment, spec)
}

func manifest(apiVersion, kind, name, comment string, spec map[string]any) Manifest {
	return Manifest{Comment: comment, Object: map[string]any{
		"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec,
	}}
}

// linkLocal are the ranges that no pool may touch.
var linkLocal = []netip.Prefix{netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")}

// parseRange reads a CIDR in canonical form, or says what is wrong with it.
func parseRange(s string) (p netip.Prefix, wrong string) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return p, fmt.Sprintf("%s is no range: write one such as 10.0.0.0/8 or fd00::/8", quote(s))
	case p.Addr().Is4In6():
		return p, fmt.Sprintf("%s is IPv4 written as IPv6: write it as IPv4", quote(s))
	case p != p.Masked():
		return p, fmt.Sprintf("%s has bits set behind the prefix: write %s", quote(s), p.Masked())
	}
	return p, ""
}

// rangeName is the name of a pool by its range, the same each time: 10.0.0.0/8 gives PREFIX-10-0-0-0-8, and
// IPv6 is written as eight four-digit groups.
func rangeName(prefix string, p netip.Prefix) string {
	a := strings.NewReplacer(".", "-", ":", "-").Replace(p.Addr().StringExpanded())
	return fmt.Sprintf("%s-%s-%d", prefix, a, p.Bits())
}

// quote shows a value of the input on one line, shortened where it is long.
func quote(v any) string {
	s, ok := v.(string)
	if !ok {
		s = fmt.Sprint(v)
	}
	const most = 80
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strconv.Quote(s)
}

// typeName is what a value is, in the words of YAML.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case string:
		return "text"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	}
	return "a number"
}

// integer is a whole number, whichever way it was decoded.
func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case float64:
		if n == float64(int64(n)) {
			return int64(n), true
		}
	}
	return 0, false
}
