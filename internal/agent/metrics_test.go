package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// broken has one metric that can be read and one that cannot.
type broken struct{}

func (broken) Describe(chan<- *prometheus.Desc) {}

func (broken) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(desc("ready", "help"), prometheus.GaugeValue, 0)
	out <- prometheus.NewInvalidMetric(desc("translated_connections_total", "help"), errors.New("the kernel gives no counters"))
}

// An alert on a node that is not ready must fire above all when the kernel does not answer.
func TestWhatCannotBeCountedHidesNothingElse(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	h := metricsHandler(broken{}, slog.New(slog.NewTextHandler(&log, nil)))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "sallyport_ready 0") {
		t.Errorf("status %d, body:\n%.300s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "the kernel gives no counters") {
		t.Errorf("the log does not say what is missing: %q", log.String())
	}
}

func TestMetricsOfContact(t *testing.T) {
	t.Parallel()
	heard := time.UnixMilli(1_000_000_500)
	for _, test := range []struct {
		name string
		c    datastore.Contact
		want map[string]float64
	}{
		{"not heard of yet", datastore.Contact{}, map[string]float64{"api_up": 0, "api_refused_requests": 0}},
		{"answers", datastore.Contact{Heard: heard}, map[string]float64{"api_up": 1, "api_refused_requests": 0, "api_last_heard_timestamp_seconds": 1_000_000.5}},
		{"lost", datastore.Contact{Heard: heard, Lost: heard}, map[string]float64{"api_up": 0, "api_refused_requests": 0, "api_last_heard_timestamp_seconds": 1_000_000.5}},
		{"refuses", datastore.Contact{Heard: heard, Problems: make([]model.Fault, 2)}, map[string]float64{"api_up": 1, "api_refused_requests": 2, "api_last_heard_timestamp_seconds": 1_000_000.5}},
	} {
		got := map[string]float64{}
		collectContact(test.c, func(d *prometheus.Desc, _ prometheus.ValueType, v float64, _ ...string) {
			name := strings.Split(d.String(), `"`)[1]
			got[strings.TrimPrefix(name, "sallyport_")] = v
		})
		if !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// TestDriversAreCalledAsDocumented: dashboards and scripts know the drivers by these names.
func TestDriversAreCalledAsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	if words := fmt.Sprintf("The drivers are `%s` and `%s`.", natDriver{}.Name(), flowsDriver{}.Name()); !strings.Contains(string(text), words) {
		t.Errorf("docs/reference/metrics.md does not say %q", words)
	}
}
