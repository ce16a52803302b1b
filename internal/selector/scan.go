package selector

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenLabel
	tokenString
	tokenAll
	tokenGlobal
	tokenHas
	tokenNot
	tokenAnd
	tokenOr
	tokenComma
	tokenOpenParenthesis
	tokenCloseParenthesis
	tokenOpenBrace
	tokenCloseBrace
)

// token is a piece of a selector. Text is the name of a label or the inside of a string.
type token struct {
	kind  tokenKind
	start int // offset in bytes
	text  string
}

// scanner cuts a selector into tokens.
type scanner struct {
	text   string
	offset int
}

func (s *scanner) rest() string { return s.text[s.offset:] }

func (s *scanner) skipSpace() {
	s.offset = len(s.text) - len(strings.TrimLeft(s.rest(), " \t"))
}

// skip steps over a prefix, if it is there.
func (s *scanner) skip(prefix string) bool {
	if !strings.HasPrefix(s.rest(), prefix) {
		return false
	}
	s.offset += len(prefix)
	return true
}

// next returns the next token where an operand, a value or punctuation may stand. The operator behind a
// label is read by operator instead: only there are words such as "in" not labels.
func (s *scanner) next() (token, error) {
	s.skipSpace()
	t := token{start: s.offset}
	rest := s.rest()
	if rest == "" {
		return t, nil
	}
	switch rest[0] {
	case '\'', '"':
		length := strings.IndexByte(rest[1:], rest[0])
		if length < 0 {
			return t, s.errorAt(len(s.text), "a closing "+rest[:1])
		}
		t.kind, t.text = tokenString, rest[1:1+length]
		s.offset += length + 2
		return t, nil
	case '&', '|':
		if len(rest) < 2 || rest[1] != rest[0] {
			return t, s.errorAt(t.start, "&& or ||")
		}
		t.kind = tokenAnd
		if rest[0] == '|' {
			t.kind = tokenOr
		}
		s.offset += 2
		return t, nil
	}
	if kind, ok := punctuation(rest[0]); ok {
		t.kind = kind
		s.offset++
		return t, nil
	}
	return s.word(t)
}

func punctuation(c byte) (tokenKind, bool) {
	switch c {
	case '!':
		return tokenNot, true
	case ',':
		return tokenComma, true
	case '(':
		return tokenOpenParenthesis, true
	case ')':
		return tokenCloseParenthesis, true
	case '{':
		return tokenOpenBrace, true
	case '}':
		return tokenCloseBrace, true
	}
	return tokenEnd, false
}

// word reads a label or a function. The parenthesis of a function follows its name at once; "all" without
// one is a label.
func (s *scanner) word(t token) (token, error) {
	switch {
	case s.skip("all("):
		t.kind = tokenAll
	case s.skip("global("):
		t.kind = tokenGlobal
	case s.skip("has("):
		t.kind = tokenHas
		s.skipSpace()
		if t.text = s.label(); t.text == "" {
			return t, s.errorAt(s.offset, "the name of a label")
		}
	default:
		t.kind = tokenLabel
		if t.text = s.label(); t.text == "" {
			return t, s.errorAt(s.offset, "a label, a value in quotes or an operator")
		}
		return t, nil
	}
	s.skipSpace()
	if !s.skip(")") {
		return t, s.errorAt(s.offset, ")")
	}
	return t, nil
}

// label reads the name of a label, or "" where none stands.
func (s *scanner) label() string {
	start := s.offset
	for s.offset < len(s.text) && isLabelByte(s.text[s.offset]) {
		s.offset++
	}
	return s.text[start:s.offset]
}

func isLabelByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '.' || c == '/' || c == '-'
}

// operator reads the operator behind a label. As in Calico, the space within "not in", "starts with" and
// "ends with", and that behind each operator, may be left out.
func (s *scanner) operator() (op, error) {
	s.skipSpace()
	start := s.offset
	switch {
	case s.skip("=="):
		return opEqual, nil
	case s.skip("!="):
		return opNotEqual, nil
	case s.skip("contains"):
		return opContains, nil
	case s.skipWords("starts", "with"):
		return opStartsWith, nil
	case s.skipWords("ends", "with"):
		return opEndsWith, nil
	case s.skipWords("not", "in"):
		return opNotIn, nil
	case s.skip("in"):
		return opIn, nil
	}
	return 0, s.errorAt(start, "==, !=, in, not in, contains, starts with or ends with")
}

// skipWords steps over two words with any space between them, or over nothing.
func (s *scanner) skipWords(first, second string) bool {
	start := s.offset
	if s.skip(first) {
		if s.skipSpace(); s.skip(second) {
			return true
		}
	}
	s.offset = start
	return false
}

// errorAt says what was expected at an offset in bytes.
func (s *scanner) errorAt(offset int, expected string) error {
	return &Error{
		Position: utf8.RuneCountInString(s.text[:offset]) + 1,
		Expected: expected,
		Found:    found(s.text[offset:]),
	}
}

// found names what a text begins with: a word, or one character.
func found(text string) string {
	if text == "" {
		return "the end"
	}
	length := 0
	for length < len(text) && length < 40 && isLabelByte(text[length]) {
		length++
	}
	if length == 0 {
		_, length = utf8.DecodeRuneInString(text)
	}
	return strconv.Quote(text[:length])
}
