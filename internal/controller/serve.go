package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// metrics are what a controller counts.
type metrics struct {
	registry *prometheus.Registry
	leader   prometheus.Gauge
	failures prometheus.Counter
	nodes    *prometheus.GaugeVec // by ready; without a leader there is none
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		leader:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "sallyport_controller_leader", Help: "1 while this controller writes; 0 while another does."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "sallyport_controller_failures_total", Help: "Times that conditions could not be written."}),
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sallyport_controller_nodes",
			Help: "Nodes that are ready in Kubernetes and should have an agent, by the condition Ready of their SallyportNodes."}, []string{"ready"}),
	}
	m.registry.MustRegister(m.leader, m.failures, m.nodes, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// count notes how nodes stand.
func (m *metrics) count(nodes []standing) {
	by := map[metav1.ConditionStatus]int{metav1.ConditionTrue: 0, metav1.ConditionFalse: 0, metav1.ConditionUnknown: 0}
	for i := range nodes {
		by[nodes[i].ready]++
	}
	for status, n := range by {
		m.nodes.WithLabelValues(string(status)).Set(float64(n))
	}
}

// serve answers probes and Prometheus until the context ends. A controller is as well as its process: one that does
// not lead is ready to.
func serve(ctx context.Context, address string, from prometheus.Gatherer) error {
	if address == "" {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening for metrics and probes (--metrics-address): %w", err)
	}
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", ok)
	mux.HandleFunc("GET /readyz", ok)
	mux.Handle("GET /metrics", promhttp.HandlerFor(from, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}
