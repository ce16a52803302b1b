// Package text shortens what people read, and shows what would command their terminal.
package text

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Show escapes control characters but tabs and line ends, what changes the direction of text, and what is no UTF-8.
func Show(s string) string { return escape(s, "\n\t") }

// Line escapes tabs and line ends as well: what came from elsewhere stays within its line and its column.
func Line(s string) string { return escape(s, "") }

func escape(s, keep string) string {
	var out []byte
	clean := 0 // up to here, s is in out or stands as it is
	for i, r := range s {
		n := utf8.RuneLen(r)
		var shown string
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			n, shown = 1, fmt.Sprintf(`\x%02x`, s[i])
		case strings.ContainsRune(keep, r) || !Obeyed(r):
			continue
		case r == '\n':
			shown = `\n`
		case r == '\t':
			shown = `\t`
		default:
			shown = fmt.Sprintf(`\u%04x`, r)
		}
		out = append(append(out, s[clean:i]...), shown...)
		clean = i + n
	}
	if clean == 0 {
		return s
	}
	return string(append(out, s[clean:]...))
}

// Obeyed says whether a terminal obeys a character: C0, C1, DEL, line separators, and those of UAX #9.
func Obeyed(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control) || r == '\u2028' || r == '\u2029'
}

// Clip shortens a text to a number of characters at most, of which "..." are the last three.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most-3]) + "..."
}

// Cut is at most so many bytes of a text, and no piece of a character.
func Cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// Few lists names, the first five of many.
func Few(names []string) string {
	const most = 5
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
