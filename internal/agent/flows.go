package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/model"
)

// flowsDriver ends flows that must not live on, once the rules stand that decide otherwise.
type flowsDriver struct{ *conntrack.Driver }

func (flowsDriver) Name() string { return "flows" }

// FlowsStatus is what became of live flows when decisions about them changed.
type FlowsStatus struct {
	ExistingFlows model.ExistingFlows `json:"existingFlows"`
	// OlderDecision is how many flows live under an older decision, of those Tracked when they were Judged.
	OlderDecision int       `json:"olderDecision"`
	Tracked       int       `json:"tracked"`
	Judged        time.Time `json:"judged"`
	// Ended counts the flows that were ended since the agent started.
	Ended uint64 `json:"ended"`
}

// flowsStatus is absent before flows were judged.
func (a *Agent) flowsStatus(mode model.ExistingFlows) *FlowsStatus {
	s := a.flows.Stats()
	if s.Judged.IsZero() {
		return nil
	}
	return &FlowsStatus{ExistingFlows: mode, OlderDecision: s.Older, Tracked: s.Tracked, Judged: s.Judged, Ended: s.Ended}
}

func collectFlows(s *FlowsStatus, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	if s == nil {
		return
	}
	send(desc("flows_older_decision", "Flows that live under an older decision than the plan's."), prometheus.GaugeValue, float64(s.OlderDecision))
	send(desc("flows_ended_total", "Flows that were ended since they must not live on after a change."), prometheus.CounterValue, float64(s.Ended))
}
