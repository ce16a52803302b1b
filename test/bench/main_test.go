package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/cli"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// programEnv makes this test binary be the program itself.
const programEnv = "SALLYPORT_BENCH_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		os.Exit(cli.Main())
	}
	if os.Getenv(speakerEnv) != "" {
		main()
		return
	}
	cluster.Main(m)
}

// TestQuick measures everything once: every variant does what it says, and every quantity is a number. How
// large it is, nobody asks.
func TestQuick(t *testing.T) {
	labtest.Need(t)
	o := quick
	// A program with the race detector would stay a second after its end.
	o.program, o.env = "/proc/self/exe", []string{programEnv + "=1", "GORACE=atexit_sleep_ms=0"}
	o.plugin, o.reference = filepath.Join(t.TempDir(), "sallyport-cni"), "/usr/lib/cni" // where Debian has the reference plugins
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", o.plugin, "../../cmd/sallyport-cni").CombinedOutput(); err != nil {
		t.Fatalf("building the plugin: %v\n%s", err, out)
	}
	r, err := measureAll(t.Context(), o, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	list, kinds := variants(o), measurements()
	quantities := 0
	for _, k := range kinds {
		quantities += len(k.reads)
	}
	if got, want := len(r.Traffic), len(list)*quantities; got != want {
		t.Errorf("%d lines about traffic, want %d", got, want)
	}
	for _, c := range r.Traffic {
		if v := c.Value.Median; math.IsNaN(v) || math.IsInf(v, 0) || v == 0 && c.Variant != list[0].Name {
			t.Errorf("%s, %s: %v is no measurement", c.Quantity, c.Variant, v)
		}
	}
	for _, a := range slices.Concat(r.Agent, r.Pods, r.Cluster) {
		if a.Answer == "" && a.Samples == 0 {
			t.Errorf("%s: nothing was measured", a.What)
		}
	}
	checkOutput(t, r)

	o.before = o.program
	both, err := measureAll(t.Context(), o, t.TempDir(), partChange)
	labtest.Must(t, err)
	if n, want := len(variants(o)), len(list)+1; n != want {
		t.Errorf("%d variants with another version, want %d", n, want)
	}
	for i := 0; i < len(both.Agent); i += 2 {
		if a, b := both.Agent[i], both.Agent[i+1]; b.What != "before: "+a.What || b.Ratio == 0 && a.P50 != 0 {
			t.Errorf("%q stands beside %q, with the ratio %v", b.What, a.What, b.Ratio)
		}
	}
}

func checkOutput(t *testing.T, r *report) {
	t.Helper()
	var table bytes.Buffer
	file := filepath.Join(t.TempDir(), "new", "bench.json")
	labtest.Must(t, r.print(&table), r.write(file))
	t.Log("\n" + table.String())
	for _, v := range r.Variants {
		if !strings.Contains(table.String(), "\n"+v.Name) {
			t.Errorf("the table lacks the variant %q", v.Name)
		}
	}
	if strings.Contains(table.String(), "%!") {
		t.Errorf("a badly formatted table")
	}
	b, err := os.ReadFile(file)
	labtest.Must(t, err)
	var again report
	labtest.Must(t, json.Unmarshal(b, &again))
	if len(again.Traffic) != len(r.Traffic) || len(again.Agent) != len(r.Agent) || len(again.Cluster) != len(r.Cluster) {
		t.Errorf("the file has %d and %d lines, want %d and %d", len(again.Traffic), len(again.Agent), len(r.Traffic), len(r.Agent))
	}
}
