package manifest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/internal/model"
)

// manifests reads a text as -f would.
func manifests(t testing.TB, text string) *Manifests {
	t.Helper()
	m, err := Read([]string{"-"}, strings.NewReader(text), nil)
	must(t, err)
	return m
}

func apply(t *testing.T, dir, text string) ([]Result, error) {
	t.Helper()
	return Apply(t.Context(), dir, validator(), manifests(t, text), nil, false)
}

func fill(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

// contentsOf is every file of a directory, dotfiles too.
func contentsOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		out[e.Name()] = string(data)
	}
	return out
}

func TestApplyEdits(t *testing.T) {
	t.Parallel()
	a, b := pool("a", "10.1.0.0/24"), pool("b", "10.2.0.0/24")
	b2 := pool("b", "10.2.0.0/24", "natOutgoing: true")
	crlf := func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }
	jsonOf := func(name, nat string) string {
		return fmt.Sprintf(`{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":%q},"spec":{"cidr":"10.2.0.0/24"%s}}`, name, nat)
	}
	for _, test := range []struct {
		name, before, apply, after string
		action                     Action
	}{
		{"the only one", b, b2, b2, Configured},
		{"unchanged", b, b, b, Unchanged},
		{"unchanged but for form", "# mine\n" + strings.Replace(b, "cidr: 10.2.0.0/24", "cidr: '10.2.0.0/24' # here", 1), jsonOf("b", ""), "", Unchanged},
		{"unchanged but for status", b, b + "status: {conditions: []}\n", b, Unchanged},
		{"the first of two", b + "---\n" + a, b2, b2 + "---\n" + a, Configured},
		{"between comments", "# head\n\n---\n# of b\n" + b + "# tail\n--- # next\n" + a, b2, "# head\n\n---\n# of b\n" + b2 + "# tail\n--- # next\n" + a, Configured},
		{"without a last newline", a + "---\n" + strings.TrimSuffix(b, "\n"), b2, a + "---\n" + strings.TrimSuffix(b2, "\n"), Configured},
		{"CRLF", crlf(a + "---\n" + b), b2, crlf(a + "---\n" + b2), Configured},
		{"behind the separator", "--- " + jsonOf("b", "") + "\n---\n" + a, b2, "--- " + strings.Replace(jsonOf("b", ""), `24"}`, `24", natOutgoing: true}`, 1) + "\n---\n" + a, Configured},
		{"between end markers", a + "...\n" + b + "...\n" + pool("c", "10.3.0.0/24"), b2, a + "...\n" + b2 + "...\n" + pool("c", "10.3.0.0/24"), Configured},
		{"JSON", jsonOf("b", "") + "\n\n" + jsonOf("z", `,"disabled":true`), b2, jsonOf("b", `,"natOutgoing":true`) + "\n\n" + jsonOf("z", `,"disabled":true`), Configured},
		{"BOM", "\xef\xbb\xbf" + b, b2, "\xef\xbb\xbf" + b2, Configured},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := fill(t, map[string]string{"f.yaml": test.before})
			r, err := apply(t, dir, test.apply)
			must(t, err)
			if len(r) != 1 || r[0].Action != test.action || r[0].File != filepath.Join(dir, "f.yaml") {
				t.Errorf("results %+v", r)
			}
			want := test.after
			if want == "" {
				want = test.before
			}
			if got := contentsOf(t, dir); len(got) != 1 || got["f.yaml"] != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestApplyMakesFiles(t *testing.T) {
	t.Parallel()
	dir := fill(t, map[string]string{"ippool_a.yaml": pool("other", "10.9.0.0/24")})
	// What kubectl prints of an object can be applied: what only a server writes is left out.
	text := strings.Replace(pool("a", "10.1.0.0/24"), "  name: a\n", "  name: a\n  uid: 1-2\n  resourceVersion: '7'\n  creationTimestamp: null\n  annotations: {kubectl.kubernetes.io/last-applied-configuration: '{}'}\n  managedFields: []\n", 1) +
		"status:\n  conditions: []\n---\napiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata: {name: main}\nspec: {priority: 3}\n"
	m := manifests(t, text)
	r, err := Apply(t.Context(), dir, validator(), m, nil, true)
	must(t, err)
	if got := contentsOf(t, dir); len(got) != 1 || len(r) != 2 {
		t.Fatalf("a dry run left %v, results %v", got, r)
	}
	if r, err = Apply(t.Context(), dir, validator(), m, nil, false); err != nil || r[0].Action != Created {
		t.Fatal(r, err)
	}
	got := contentsOf(t, dir)
	if got["ippool_a-2.yaml"] != pool("a", "10.1.0.0/24") || len(got) != 3 ||
		got["natconfiguration_main.yaml"] != "apiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata:\n  name: main\nspec:\n  priority: 3\n" {
		t.Errorf("files %q", got)
	}
	l, err := ReadDir(dir, validator())
	if err != nil || len(l.Faults()) > 0 || len(l.Objects()) != 3 {
		t.Errorf("read %+v, %v", l, err)
	}
	for i, o := range l.Objects() {
		if o.Key == r[0].Key && o.Digest() != r[0].Digest {
			t.Errorf("object %d has another digest than what was applied", i)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	a, b := pool("a", "10.1.0.0/24"), pool("b", "10.2.0.0/24")
	list := "apiVersion: v1\nkind: List\nitems:\n- apiVersion: projectcalico.org/v3\n  kind: IPPool\n  metadata: {name: a}\n  spec: {cidr: 10.1.0.0/24}\n"
	for _, test := range []struct{ name, before, apply, err string }{
		{"one that is invalid", a, b + "---\n" + pool("c", "10.3.0.1/24"), "spec.cidr"},
		{"one that cannot be read", a, b + "---\nfoo: [", "-:8"},
		{"another document is faulty", a + "---\n" + pool("c", "nonsense"), b, "f.yaml:13"},
		{"another document cannot be read", a + "---\n[", b, "f.yaml"},
		{"a cidr that changes", a, pool("a", "10.3.0.0/24"), "spec.cidr"},
		{"the same twice", "# none\n", a + "---\n" + a, "declared already"},
		{"declared twice", a + "---\n" + a, pool("a", "10.1.0.0/24", "disabled: true"), "declared already"},
		{"inside a List", list, pool("a", "10.1.0.0/24", "disabled: true"), "inside a List in "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := fill(t, map[string]string{"f.yaml": test.before})
			_, err := apply(t, dir, test.apply)
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want one with %q", err, test.err)
			}
			if got := contentsOf(t, dir); len(got) != 1 || got["f.yaml"] != test.before {
				t.Errorf("files %q", got)
			}
		})
	}
	if _, err := apply(t, filepath.Join(t.TempDir(), "none"), a); err == nil || !strings.Contains(err.Error(), "create it") {
		t.Error(err)
	}
}

func TestApplyMendsTheFaultyObject(t *testing.T) {
	t.Parallel()
	dir := fill(t, map[string]string{"f.yaml": pool("a", "nonsense") + "---\n" + pool("b", "10.2.0.0/24")})
	if r, err := apply(t, dir, pool("a", "10.1.0.0/24")); err != nil || r[0].Action != Configured {
		t.Fatal(r, err)
	}
	if got := contentsOf(t, dir)["f.yaml"]; got != pool("a", "10.1.0.0/24")+"---\n"+pool("b", "10.2.0.0/24") {
		t.Errorf("%q", got)
	}
}

func TestApplyFollowsLinksAndKeepsModes(t *testing.T) {
	t.Parallel()
	far := filepath.Join(t.TempDir(), "real.txt")
	write(t, far, pool("a", "10.1.0.0/24"))
	must(t, os.Chmod(far, 0o640))
	dir := t.TempDir()
	must(t, os.Symlink(far, filepath.Join(dir, "a.yaml")))
	_, err := apply(t, dir, pool("a", "10.1.0.0/24", "disabled: true"))
	must(t, err)
	if _, err := os.Readlink(filepath.Join(dir, "a.yaml")); err != nil {
		t.Error("the link was replaced:", err)
	}
	var st unix.Stat_t
	must(t, unix.Stat(far, &st))
	if data, err := os.ReadFile(far); err != nil || !strings.Contains(string(data), "disabled: true") || st.Mode&0o777 != 0o640 {
		t.Errorf("%q, %v, mode %o", data, err, st.Mode)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	a, b, c := pool("a", "10.1.0.0/24"), pool("b", "10.2.0.0/24"), pool("c", "10.3.0.0/24")
	for _, test := range []struct {
		name, before, after string
		kept                bool
	}{
		{"the only one", "# of b\n---\n" + b, "# of b\n", true},
		{"the only one, nothing left", "---\n# inside\n" + b + "---\n\n", "", false},
		{"the first", b + "---\n" + a, "---\n" + a, true},
		{"the middle", a + "---\n" + b + "--- # c\n" + c, a + "--- # c\n" + c, true},
		{"the last", a + "---\n# of b\n" + b, a, true},
		{"before one without a separator", a + "---\n" + b + "...\n" + c, a + "...\n" + c, true},
		{"JSON", `{"apiVersion":"projectcalico.org/v3","kind":"IPPool","metadata":{"name":"b"},"spec":{"cidr":"10.2.0.0/24"}}` + "\n", "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := fill(t, map[string]string{"f.yaml": test.before})
			r, err := Delete(t.Context(), dir, validator(), []Key{{Kind: model.KindIPPool, Name: "b"}, {Kind: model.KindIPPool, Name: "zz"}}, nil, false)
			if e := (*NotFoundError)(nil); !errors.As(err, &e) || e.Name != "zz" || len(r) != 1 || r[0].Action != Deleted {
				t.Errorf("%v, %v", r, err)
			}
			got, kept := contentsOf(t, dir)["f.yaml"]
			if got != test.after || kept != test.kept {
				t.Errorf("got %q (%v), want %q", got, kept, test.after)
			}
		})
	}
}

func TestEditsAtTheSameTimeLoseNothing(t *testing.T) {
	t.Parallel()
	dir := fill(t, map[string]string{"f.yaml": pool("p0", "10.0.0.0/24") + "---\n" + pool("p1", "10.0.1.0/24") + "---\n" + pool("p2", "10.0.2.0/24")})
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() {
			if _, err := apply(t, dir, pool(fmt.Sprintf("p%d", i), fmt.Sprintf("10.0.%d.0/24", i), "disabled: true")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	m, err := ReadDir(dir, nil)
	must(t, err)
	for _, o := range m.Objects() {
		if !strings.Contains(string(o.JSON), `"disabled":true`) {
			t.Errorf("the change of %s was lost", o.Key)
		}
	}
	if n := len(m.Objects()); n != 6 {
		t.Errorf("%d pools", n)
	}
}

// Whatever surrounds a document, replacing it changes not one byte of that.
func TestRewriteLeavesNeighbours(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "documents")
		newline := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "newline")
		filler := rapid.SampledFrom([]string{"", "\n", "# comment\n", "  # indented\n", "  \n", "#\n\n"})
		var text strings.Builder
		text.WriteString(rapid.SampledFrom([]string{"", "\xef\xbb\xbf", "# head\n---\n", "---\n"}).Draw(t, "head"))
		for i := range n {
			if i > 0 {
				text.WriteString(rapid.SampledFrom([]string{"---\n", "--- # c\n", "...\n", "...\n---\n", "---\n---\n", "--- \n# x\n---\n"}).Draw(t, "separator"))
			}
			text.WriteString(filler.Draw(t, "before"))
			doc := rapid.SampledFrom([]string{
				pool(fmt.Sprint("p", i), "10.0.0.0/24"),
				pool(fmt.Sprint("p", i), "10.0.0.0/24", "nodeSelector: |-", "  all()", "# outside"),
				fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p%d},\n spec: {cidr: 10.0.0.0/24}} # tail\n", i),
				fmt.Sprintf("  apiVersion: projectcalico.org/v3 # x\n  kind: IPPool\n  metadata: {name: p%d, labels: {a: \"#\"}}\n", i),
			}).Draw(t, "document")
			text.WriteString(doc)
			text.WriteString(filler.Draw(t, "after"))
		}
		data := strings.ReplaceAll(text.String(), "\n", newline)
		if rapid.Bool().Draw(t, "cut") {
			data = strings.TrimRight(data, "\r\n")
		}
		p := Parse("f.yaml", []byte(data))
		if len(p.Objects) != n || len(p.Faults) > 0 {
			t.Fatalf("%d objects of %d, faults %v, in %q", len(p.Objects), n, p.Faults, data)
		}
		i := rapid.IntRange(0, n-1).Draw(t, "replaced")
		var to *Object
		if rapid.IntRange(0, 3).Draw(t, "delete") > 0 {
			to = &Parse("-", []byte(pool(fmt.Sprint("p", i), "10.0.0.0/24", "natOutgoing: true", "nodeSelector: \"a == 'b' || \\n\\n c == 'd'\""))).Objects[0].Object
		}
		out, err := rewrite(p, map[int]*Object{i: to})
		if err != nil {
			t.Fatalf("%v, in %q", err, data)
		}
		d := p.docs[i]
		before, after := data[:d.body], data[d.bodyEnd:]
		if to == nil {
			before, after = data[:d.start], data[d.end:]
		}
		if !strings.HasPrefix(string(out), before) || !strings.HasSuffix(string(out), after) {
			t.Fatalf("neighbours of %d changed:\n%q\n%q", i, data, out)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(pool("a", "10.0.0.0/24") + "---\n# c\n...\n{a: b}"))
	f.Add([]byte(`{"kind":"List","items":[{"kind":"Node","apiVersion":"v1","metadata":{"name":"x"}}, 1]}`))
	f.Add([]byte("--- !!map\n&a b: *a\n---\n? [x]\n: y\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := Parse("f.yaml", data)
		end := 0
		for _, d := range p.docs {
			if d.start < end || d.body < d.start || d.bodyEnd <= d.body || d.stop < d.bodyEnd || d.end < d.stop || d.end > len(data) {
				t.Fatalf("document %+v after %d, of %d bytes", d, end, len(data))
			}
			end = d.end
		}
		for _, fault := range p.Faults {
			if fault.Message == "" || fault.Line < 0 || fault.Line > len(data)+1 {
				t.Fatalf("fault %+v", fault)
			}
		}
		for _, m := range p.Objects {
			if _, err := m.Map(); err != nil {
				t.Fatal(err)
			}
			_ = p.line(&m, "spec.cidr")
			if m.item >= 0 {
				continue
			}
			// An edit is right or refused.
			if _, err := rewrite(p, map[int]*Object{m.doc: &m.Object}); err != nil && !strings.Contains(err.Error(), "by hand") {
				t.Fatal(err)
			}
		}
	})
}

func TestAnEditThatDoesNotEndIsNamed(t *testing.T) {
	t.Parallel()
	dir := fill(t, map[string]string{"a.yaml": pool("a", "10.1.0.0/24")})
	unlock, err := lock(t.Context(), dir, patience)
	must(t, err)
	defer unlock()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for what, wait := range map[string]func() error{
		"patience":    func() error { _, err := lock(t.Context(), dir, 50*time.Millisecond); return err },
		"the context": func() error { _, err := lock(short, dir, time.Hour); return err },
	} {
		if err := wait(); err == nil || !strings.Contains(err.Error(), "try again") || !strings.Contains(err.Error(), dir) {
			t.Errorf("while another edit goes on, bounded by %s: %v", what, err)
		}
	}
}
