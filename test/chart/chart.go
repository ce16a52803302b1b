// Package chart renders Sallyport's Helm chart for tests, with the Helm that the Makefile builds, and reads the commands that
// pages have.
package chart

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/yaml"
)

// Namespace is that of the release that is rendered.
const Namespace = "sallyport-system"

// Root is the root of the repository.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no directory above this one has a go.mod")
		}
	}
}

// Dir is the chart's directory.
func Dir(t testing.TB) string {
	t.Helper()
	return filepath.Join(Root(t), "deploy/helm/sallyport")
}

// Program finds Helm: in the variable HELM, or where the Makefile puts it.
func Program(t testing.TB) string {
	t.Helper()
	path := os.Getenv("HELM")
	if path == "" {
		makefile, err := os.ReadFile(filepath.Join(Root(t), "Makefile"))
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^HELM_VERSION\s*:=\s*(\S+)$`).FindSubmatch(makefile)
		if m == nil {
			t.Fatal("the Makefile names no HELM_VERSION")
		}
		path = filepath.Join(Root(t), "bin", "helm-"+string(m[1]))
	}
	if _, err := exec.LookPath(path); err != nil {
		t.Fatalf("%v: run make manifests, which builds it", err)
	}
	return path
}

// Helm runs Helm with none of its user's settings, and returns its standard output; with an error, what it says on
// standard error.
func Helm(t testing.TB, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), Program(t), args...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + filepath.Join(home, "none")}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		return errs.String(), err
	}
	return out.String(), nil
}

// Object is a manifest that the chart made.
type Object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Text string `json:"-"`
}

func (o Object) String() string { return o.Kind + " " + o.Metadata.Name }

// Render returns what the chart makes of values, given as arguments of Helm.
func Render(t testing.TB, values ...string) []Object {
	t.Helper()
	out, err := Helm(t, append([]string{"template", "sallyport", Dir(t), "--namespace", Namespace}, values...)...)
	if err != nil {
		t.Fatalf("helm template %s: %v\n%s", strings.Join(values, " "), err, out)
	}
	return Objects(t, out)
}

// Objects splits a stream of manifests.
func Objects(t testing.TB, stream string) []Object {
	t.Helper()
	var all []Object
	for text := range strings.SplitSeq("\n"+stream, "\n---\n") {
		text = regexp.MustCompile(`(?m)^#.*\n?`).ReplaceAllString(text, "")
		if strings.TrimSpace(text) == "" {
			continue
		}
		o := Object{Text: strings.TrimSpace(text) + "\n"}
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		all = append(all, o)
	}
	if len(all) == 0 {
		t.Fatal("no object was rendered")
	}
	return all
}
