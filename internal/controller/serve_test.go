package controller

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// TestNodesAreCounted: each node that is ready in Kubernetes and should have an agent counts once, as its agent or the controller
// says that it stands.
func TestNodesAreCounted(t *testing.T) {
	t.Parallel()
	var nodes []corev1.Node
	for _, name := range []string{"well", "faulty", "silent", "called before", "without agent"} {
		nodes = append(nodes, testNode(name, true, time.Hour))
	}
	nodes = append(nodes, testNode("down", false, time.Hour), testNode("joins", true, time.Second))
	said := []v1alpha1.SallyportNode{testStatus("well", true, 1), testStatus("faulty", false, 1), testStatus("silent", true, 1), unknown(testStatus("called before", true, 1)), testStatus("down", true, 1)}
	m := newMetrics()
	text := func() string {
		w := httptest.NewRecorder()
		promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		return w.Body.String()
	}
	if strings.Contains(text(), "sallyport_controller_nodes{") {
		t.Error("a controller that does not lead counts nodes")
	}
	stand, _ := standings(now, nodes, labels.Everything(), said, map[string]call{"silent": {v1alpha1.SallyportNodeReasonHeartbeatMissing, "no heartbeat"}})
	m.count(stand)
	for _, want := range []string{`{ready="True"} 1`, `{ready="False"} 1`, `{ready="Unknown"} 3`} {
		if !strings.Contains(text(), "sallyport_controller_nodes"+want) {
			t.Errorf("there is no sallyport_controller_nodes%s in\n%s", want, text())
		}
	}
	m.count(nil)
	if !strings.Contains(text(), `sallyport_controller_nodes{ready="Unknown"} 0`) {
		t.Error("what no node is any more is not 0")
	}
}
