package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
)

// TestOthersAreReadOnlyOnceTheyChange edits a directory with a file that is faulty, which shows where it is read.
func TestOthersAreReadOnlyOnceTheyChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const a = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.1.0.0/24}\n"
	write("a.yaml", a)
	write("bad.yaml", "[")
	id, err := Stat(filepath.Join(dir, "bad.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	others := Others{"bad.yaml": id.String(), "gone.yaml": "x"}
	key := []Key{{Kind: model.KindIPPool, Name: "a"}}
	edit := func(others Others) (Action, error) {
		r, err := Apply(t.Context(), dir, validator(), manifests(t, strings.Replace(a, "spec: {", "spec: {disabled: true, ", 1)), others, true)
		if err != nil {
			_, err = Delete(t.Context(), dir, validator(), key, others, true)
			return "", err
		}
		return r[0].Action, nil
	}
	if did, err := edit(others); err != nil || did != Configured {
		t.Errorf("one that is unchanged was read: %s, %v", did, err)
	}
	if _, err := Delete(t.Context(), dir, validator(), key, others, true); err != nil {
		t.Errorf("one that is unchanged was read: %v", err)
	}
	for what, change := range map[string]func(){
		"not known":  func() { delete(others, "bad.yaml") },
		"changed":    func() { write("bad.yaml", "[ ") },
		"a new file": func() { write("new.yaml", "[") },
	} {
		others = Others{"bad.yaml": id.String()}
		change()
		if _, err := edit(others); err == nil || !strings.Contains(err.Error(), "the directory has faults") {
			t.Errorf("%s, and was not read: %v", what, err)
		}
	}
}
