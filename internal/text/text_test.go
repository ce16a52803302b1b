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
