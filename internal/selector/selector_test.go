package selector

import (
	"errors"
	"strings"
	"testing"
)

func TestMatches(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"role": "db", "zone": "eu-1a", "empty": "", "k8s.io/os_x-1": "linux", "in": "x", "all": "y", "quoted": `a"b`}
	tests := []struct {
		selector string
		want     bool
	}{
		// Everything.
		{"", true}, {" \t ", true}, {"all()", true}, {"all( \t)", true}, {"global()", true}, {"!all()", false}, {"!!all()", true}, {"! ! !all()", false},
		// Presence.
		{"has(role)", true}, {"has( role\t)", true}, {"has(nope)", false}, {"!has(role)", false}, {"!has(nope)", true}, {"has(empty)", true}, {"has(k8s.io/os_x-1)", true},
		// Equality, also of labels that are missing.
		{"role == 'db'", true}, {`role == "db"`, true}, {"role=='db'", true}, {"role == 'web'", false}, {"nope == 'db'", false}, {"nope == ''", false}, {"empty == ''", true},
		{"role != 'db'", false}, {"role!='web'", true}, {"nope != 'db'", true}, {"nope != ''", true}, {"empty != ''", false},
		{"! role == 'web'", true}, {"!nope == 'x'", true}, {`quoted == 'a"b'`, true},
		// Sets.
		{"role in {'web', 'db'}", true}, {"role in {'web'}", false}, {"role in {}", false}, {"role in {'db',}", true}, {"role in{'db'}", true}, {`role in {"db",'db'}`, true}, {"nope in {'db'}", false}, {"nope in {''}", false},
		{"role not in {'web'}", true}, {"role not in {'web', 'db'}", false}, {"role not in {}", true}, {"nope not in {'db'}", true}, {"role notin {'db'}", false}, {"role not \t in{'db'}", false},
		// Substrings.
		{"zone contains 'u-1'", true}, {"zone contains ''", true}, {"zone contains 'x'", false}, {"nope contains ''", false}, {"zone contains'eu'", true},
		{"zone starts with 'eu'", true}, {"zone starts with '1a'", false}, {"zone startswith 'eu'", true}, {"nope starts with ''", false},
		{"zone ends with '1a'", true}, {"zone ends with 'eu'", false}, {"zone ends\twith '1a'", true}, {"nope ends with ''", false},
		// Words of the language are labels where a label stands.
		{"in == 'x'", true}, {"all == 'y'", true}, {"in in {'x'}", true}, {"has == 'x'", false}, {"not != 'x'", true},
		// Precedence: ! before && before ||.
		{"all() || all() && !all()", true}, {"(all() || all()) && !all()", false}, {"!all() && all() || all()", true}, {"!all() || all()", true}, {"!(all() || all())", false},
		{"has(role) && has(zone) && has(empty)", true}, {"has(role)&&has(nope)||has(zone)", true}, {"has(nope) || has(role) && zone == 'x'", false}, {"((has(role)))", true},
	}
	for _, test := range tests {
		s, err := Parse(test.selector)
		if err != nil {
			t.Errorf("Parse(%q): %v", test.selector, err)
			continue
		}
		if got := s.Matches(labels); got != test.want {
			t.Errorf("%q matches: %v, want %v", test.selector, got, test.want)
		}
		again, err := Parse(s.String())
		if err != nil || again.String() != s.String() || again.Matches(labels) != test.want {
			t.Errorf("%q renders as %q, which reads back as %v (%v)", test.selector, s, again, err)
		}
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                              `all()`,
		"a=='b'":                        `a == "b"`,
		`a == 'say "b"'`:                `a == 'say "b"'`,
		`a == "it's"`:                   `a == "it's"`,
		"a in {'z', 'b', 'z',}":         `a in {"b", "z"}`,
		"a notin {}":                    `a not in {}`,
		"!!has(a)":                      `has(a)`,
		"!!!has(a)":                     `!has(a)`,
		"!a == 'b'":                     `!a == "b"`,
		"a != 'b' || has(c)&&(all())":   `a != "b" || has(c) && all()`,
		"(a != 'b' || has(c))&&(all())": `(a != "b" || has(c)) && all()`,
		"!(!(has(a)))":                  `has(a)`,
		"has(a) && (has(b) && (has(c) || (has(d) || has(e))))": `has(a) && has(b) && (has(c) || has(d) || has(e))`,
		"a startswith 'b'":             `a starts with "b"`,
		"!(global() || a contains '')": `!(global() || a contains "")`,
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("Parse(%q): %v", text, err)
			continue
		}
		if got := s.String(); got != want {
			t.Errorf("%q renders as %s, want %s", text, got, want)
		}
	}
}

func TestGlobal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": false, "all()": false, "global()": true, "!global()": true, "has(a) && (all() || !global( ))": true,
		"a == 'global()'": false, "has(global)": false,
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("Parse(%q): %v", text, err)
			continue
		}
		if got := s.Global(); got != want {
			t.Errorf("%q: global %v, want %v", text, got, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		selector string
		want     string
	}{
		{"has(", "at character 5: expected the name of a label, found the end"},
		{"has()", `at character 5: expected the name of a label, found ")"`},
		{"has(a", "at character 6: expected ), found the end"},
		{"has(a b)", `at character 7: expected ), found "b"`},
		{"has (a)", `at character 5: expected ==, !=, in, not in, contains, starts with or ends with, found "("`},
		{"all(", "at character 5: expected ), found the end"},
		{"all ()", `at character 5: expected ==, !=, in, not in, contains, starts with or ends with, found "("`},
		{"global(x)", `at character 8: expected ), found "x"`},
		{"role", "at character 5: expected ==, !=, in, not in, contains, starts with or ends with, found the end"},
		{"role = 'db'", `at character 6: expected ==, !=, in, not in, contains, starts with or ends with, found "="`},
		{"role is 'db'", `at character 6: expected ==, !=, in, not in, contains, starts with or ends with, found "is"`},
		{"role not 'db'", `at character 6: expected ==, !=, in, not in, contains, starts with or ends with, found "not"`},
		{"role starts 'db'", `at character 6: expected ==, !=, in, not in, contains, starts with or ends with, found "starts"`},
		{"role == db", `at character 9: expected a value in quotes, found "db"`},
		{"role == ", "at character 9: expected a value in quotes, found the end"},
		{"role == 'db", "at character 12: expected a closing ', found the end"},
		{`role == "db'`, `at character 13: expected a closing ", found the end`},
		{"role in 'db'", `at character 9: expected { and values in quotes, found "'"`},
		{"role in {db}", `at character 10: expected a value in quotes or }, found "db"`},
		{"role in {'db'", "at character 14: expected , or }, found the end"},
		{"role in {'a' 'b'}", `at character 14: expected , or }, found "'"`},
		{"role in {,}", `at character 10: expected a value in quotes or }, found ","`},
		{"role in {'a',,}", `at character 14: expected a value in quotes or }, found ","`},
		{"all() &", `at character 7: expected && or ||, found "&"`},
		{"all() | all()", `at character 7: expected && or ||, found "|"`},
		{"all() &&", "at character 9: expected a label, all(), has(...), ! or (, found the end"},
		{"&& all()", `at character 1: expected a label, all(), has(...), ! or (, found "&"`},
		{"!", "at character 2: expected a label, all(), has(...), ! or (, found the end"},
		{"()", `at character 2: expected a label, all(), has(...), ! or (, found ")"`},
		{"(all()", "at character 7: expected &&, || or ), found the end"},
		{"all())", `at character 6: expected &&, || or the end, found ")"`},
		{"all() all()", `at character 7: expected &&, || or the end, found "all"`},
		{"a == 'b' c == 'd'", `at character 10: expected &&, || or the end, found "c"`},
		{"'a' == 'b'", `at character 1: expected a label, all(), has(...), ! or (, found "'"`},
		{"ä == 'b'", `at character 1: expected a label, a value in quotes or an operator, found "ä"`},
		{"a == 'äöü' $", `at character 12: expected a label, a value in quotes or an operator, found "$"`},
		{"all()\n", `at character 6: expected a label, a value in quotes or an operator, found "\n"`},
		{"a == 'b'\x00", `at character 9: expected a label, a value in quotes or an operator, found "\x00"`},
	}
	for _, test := range tests {
		s, err := Parse(test.selector)
		if err == nil {
			t.Errorf("Parse(%q) = %s, want an error", test.selector, s)
			continue
		}
		if got := err.Error(); got != test.want {
			t.Errorf("Parse(%q):\n got %s\nwant %s", test.selector, got, test.want)
		}
		var typed *Error
		if !errors.As(err, &typed) {
			t.Errorf("Parse(%q): the error is a %T", test.selector, err)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat("(", n) + "all()" + strings.Repeat(")", n) }
	long := func(n int) string { return "a == '" + strings.Repeat("x", n-7) + "'" }
	for text, valid := range map[string]bool{
		nested(MaxDepth): true, nested(MaxDepth + 1): false, nested(5000): false,
		strings.Repeat("!(", 5000):            false,
		strings.Repeat("!", 10000) + "all()":  true,
		long(MaxLength):                       true,
		long(MaxLength + 1):                   false,
		strings.Repeat(" ", MaxLength):        true,
		strings.Repeat("ä", MaxLength):        false,
		strings.Repeat("all()||", 2000) + "a": false,
	} {
		if _, err := Parse(text); (err == nil) != valid {
			t.Errorf("Parse of %d bytes, %.20s...: %v, want valid %v", len(text), text, err, valid)
		}
	}
}

// TestLabelBytes tries every byte alone as the name of a label.
func TestLabelBytes(t *testing.T) {
	t.Parallel()
	for b := range 256 {
		label := string([]byte{byte(b)})
		want := strings.Contains("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-", label)
		if _, err := Parse(label + " == 'x'"); (err == nil) != want {
			t.Errorf("a label of the byte %q: %v", label, err)
		}
	}
}

func TestTooLongSaysByHowMuch(t *testing.T) {
	t.Parallel()
	_, err := Parse(strings.Repeat("ä", MaxLength/2) + "abc")
	const want = "at character 131073: expected the end, since a selector has at most 262144 bytes, found 3 more"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestMatchesDoesNotAllocate(t *testing.T) {
	s, err := Parse("has(a) && (b in {'x', 'y'} || !(c starts with 'z')) && d != 'e'")
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"a": "", "b": "y", "c": "zebra"}
	if n := testing.AllocsPerRun(100, func() { s.Matches(labels) }); n != 0 {
		t.Errorf("Matches allocates %v times", n)
	}
}

func BenchmarkMatches(b *testing.B) {
	s, err := Parse("has(a) && (b in {'x', 'y'} || !(c starts with 'z')) && d != 'e'")
	if err != nil {
		b.Fatal(err)
	}
	labels := map[string]string{"a": "", "b": "y", "c": "zebra"}
	for b.Loop() {
		s.Matches(labels)
	}
}
