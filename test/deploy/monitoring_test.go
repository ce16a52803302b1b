package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/yaml"
)

const (
	rulesFile     = "deploy/prometheus/sallyport-rules.yaml"
	dashboardFile = "deploy/grafana/sallyport.json"
	runbook       = "https://github.com/sallyport/sallyport/blob/main/docs/alerts.md#"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

type ruleFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert,omitempty"`
	Record      string            `json:"record,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func rules(t *testing.T) []rule {
	t.Helper()
	var f ruleFile
	if err := yaml.UnmarshalStrict([]byte(read(t, rulesFile)), &f); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

type dashboard struct {
	Panels []struct {
		ID      int    `json:"id"`
		Title   string `json:"title"`
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

// expressions are those of the dashboard's panels, with its variables filled in.
func expressions(t *testing.T) []string {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	var all []string
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("panel %q has the id of another, or shows nothing", p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			all = append(all, strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*").Replace(target.Expr))
		}
	}
	return all
}

// TestAlertsHaveRunbooks makes sure that every alert says what it is about and has a section in the runbook,
// and that every section has an alert.
func TestAlertsHaveRunbooks(t *testing.T) {
	t.Parallel()
	var alerts, sections []string
	for _, r := range rules(t) {
		alerts = append(alerts, r.Alert)
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: has no summary, description or severity", r.Alert)
		}
		if want := runbook + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
			t.Errorf("%s: the runbook is %s, want %s", r.Alert, r.Annotations["runbook_url"], want)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^## (Sallyport\w+)$`).FindAllStringSubmatch(read(t, "docs/alerts.md"), -1) {
		sections = append(sections, m[1])
	}
	slices.Sort(alerts)
	slices.Sort(sections)
	if len(alerts) < 5 || !slices.Equal(alerts, sections) {
		t.Errorf("there are the alerts %q, and the sections %q", alerts, sections)
	}
}

// TestMetricsExist looks for every metric, and every kind of problem, that a rule or a panel names.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	described := read(t, "docs/reference/metrics.md")
	kinds := read(t, "docs/troubleshooting.md")
	all := expressions(t)
	for _, r := range rules(t) {
		all = append(all, r.Expr)
	}
	names, matchers := regexp.MustCompile(`\bsallyport_\w+`), regexp.MustCompile(`kind!?=~?"([\w|]+)"`)
	seen := 0
	for _, e := range all {
		for _, name := range names.FindAllString(e, -1) {
			seen++
			if !strings.Contains(described, "\n| `"+name+"` |") {
				t.Errorf("%s: there is no metric %s in docs/reference/metrics.md", e, name)
			}
		}
		for _, m := range matchers.FindAllStringSubmatch(e, -1) {
			for kind := range strings.SplitSeq(m[1], "|") {
				if !strings.Contains(kinds, "\n### "+kind+"\n") {
					t.Errorf("%s: there is no kind of problem %s in docs/troubleshooting.md", e, kind)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d metrics were found; the test looks at nothing", seen)
	}
}

// TestPromtool has Prometheus read the rules, fire them, and read the dashboard's expressions. Debian has promtool
// only with the server, 96 MB and a service that starts; so it is used where it is installed.
func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Log("promtool is not installed: the expressions were not read by Prometheus")
		return
	}
	var panels ruleFile
	if err := yaml.Unmarshal([]byte("groups: [{name: panels}]"), &panels); err != nil {
		t.Fatal(err)
	}
	for i, e := range expressions(t) {
		panels.Groups[0].Rules = append(panels.Groups[0].Rules, rule{Record: fmt.Sprintf("panel:%d", i), Expr: e})
	}
	text, err := yaml.Encode(panels)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", filepath.Join(root, rulesFile)},
		{"check", "rules", file},
		{"test", "rules", "testdata/rules_test.yaml"},
	} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
