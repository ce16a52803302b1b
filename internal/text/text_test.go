package text

import "testing"

func TestShortening(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, got, want string }{
		{"a short text", Clip("short", 5), "short"},
		{"a long text", Clip("longer", 5), "lo..."},
		{"characters of several bytes that fit", Clip("ööööö", 5), "ööööö"},
		{"more of them", Clip("öööööö", 5), "öö..."},
		{"bytes that fit", Cut("ab", 2), "ab"},
		{"bytes", Cut("abc", 2), "ab"},
		{"a piece of a character", Cut("aö", 2), "a"},
		{"a piece of the first character", Cut("ö", 1), ""},
		{"no name", Few(nil), ""},
		{"five names", Few([]string{"a", "b", "c", "d", "e"}), "a, b, c, d, e"},
		{"six names", Few([]string{"a", "b", "c", "d", "e", "f"}), "a, b, c, d, e and 1 more"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.what, c.got, c.want)
		}
	}
}

func TestWhatCommandsATerminalIsShown(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"pool\tä 漢\n":           {"pool\tä 漢\n", `pool\tä 漢\n`},
		"a\x1b[2Jb\rc\x00\x7f":  {`a\u001b[2Jb\u000dc\u0000\u007f`, `a\u001b[2Jb\u000dc\u0000\u007f`},
		"a\u009b31mb":           {`a\u009b31mb`, `a\u009b31mb`},
		"a\u202eb\u2066c\u200f": {`a\u202eb\u2066c\u200f`, `a\u202eb\u2066c\u200f`},
		"a\xffb\xff":            {`a\xffb\xff`, `a\xffb\xff`},
		"a\ufffdb":              {"a\ufffdb", "a\ufffdb"},
		"\u2028b":               {`\u2028b`, `\u2028b`},
		"\n":                    {"\n", `\n`},
		"":                      {"", ""},
	} {
		if got := [2]string{Show(in), Line(in)}; got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
