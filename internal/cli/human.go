package cli

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// human is standard output for people. What is for programs, JSON and YAML, goes to the command's own output as it is.
func human(cmd *cobra.Command) io.Writer { return safeWriter{cmd.OutOrStdout()} }

// safeWriter shows what would command a terminal in place of passing it on: names, field paths and messages come from
// files and servers that anyone may have written.
type safeWriter struct{ io.Writer }

func (w safeWriter) Write(b []byte) (int, error) {
	if _, err := w.Writer.Write(safe(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// safe escapes control characters but tabs and line ends, what changes the direction of text, and what is no UTF-8.
func safe(b []byte) []byte {
	var out []byte
	for rest := b; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			out = fmt.Appendf(out, `\x%02x`, rest[0])
		case r == '\n' || r == '\t' || !commands(r):
			out = append(out, rest[:n]...)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		rest = rest[n:]
	}
	if bytes.Equal(out, b) {
		return b
	}
	return out
}

// commands says whether a terminal obeys a character: C0, C1, DEL, line separators, and those of UAX #9.
func commands(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control) || r == '\u2028' || r == '\u2029'
}
