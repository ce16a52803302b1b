package agent

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
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
