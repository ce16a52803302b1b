package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/reconcile"
)

// status gathers how the node stands, waiting for the kernel's counters until the context ends. With an error,
// what could be gathered is returned.
func (a *Agent) status(ctx context.Context) (*Status, error) {
	loop, _ := a.loop.State()
	held := a.resources.get()
	out := &Status{Node: a.cfg.NodeName, Version: a.cfg.Version, Drivers: loop.Drivers, Pools: []PoolStatus{}, Faults: []model.Fault{}, Pending: []string{}, Warnings: []model.Fault{}}
	out.Ready, out.Reason = ready(loop, held)
	a.addDiagnosis(out)
	out.Faults = append(out.Faults, held.Faults...)
	out.Pending = append(out.Pending, held.Pending...)
	out.Warnings = append(out.Warnings, held.Warnings...)
	a.addContact(out)
	if loop.Plan != nil {
		out.NAT = natStatus(&loop.Plan.NAT)
		out.NAT.Settings = loop.Plan.Settings
		out.Flows = a.flowsStatus(loop.Plan.NAT.ExistingFlows)
	}
	out.Network = a.network.status(ctx, loop.Plan)
	counted, err := a.counting.get(ctx)
	if loop.Plan != nil && loop.Plan.NAT.LeakGuard {
		out.LeakGuard = &LeakGuardStatus{DroppedOut: counted.dropped.Out, DroppedIn: counted.dropped.In}
	}
	if s := held.Snapshot; s != nil {
		out.Resources = ResourceStatus{Pools: len(s.Pools), NATConfigurations: len(s.NATConfigurations), Nodes: len(s.Nodes)}
		for _, p := range s.Pools {
			status := poolStatus(p, held.Conditions[p.Name])
			status.TranslatedConnections = counted.pools[p.Name].Connections
			out.Pools = append(out.Pools, status)
		}
	}
	return out, err
}

// poolStatus is how a pool stands, but for the connections that were counted.
func poolStatus(p *model.Pool, c compile.Condition) PoolStatus {
	return PoolStatus{Name: p.Name, CIDR: p.CIDR, NATOutgoing: p.NATOutgoing, Disabled: p.Disabled, Allocatable: c.Allocatable, Reason: c.Reason, Message: c.Message}
}

// lostAfter is how long an API server must not answer before that is a warning.
const lostAfter = 10 * time.Second

// addContact says how the agent stands with what it reads.
func (a *Agent) addContact(s *Status) {
	c := a.store.Contact()
	if a.cfg.Datastore != Kubernetes {
		s.Dir = c.Where
		return
	}
	s.API = &APIStatus{Server: c.Where, Heard: c.Heard, Lost: c.Lost, Error: c.Error}
	s.Warnings = append(s.Warnings, c.Problems...)
	s.Warnings = append(s.Warnings, a.complaints.warnings()...)
	if c.Lost.IsZero() || time.Since(c.Lost) < lostAfter {
		return
	}
	view := "what was saved before the agent started is in force"
	switch {
	case a.resources.get().Snapshot == nil:
		view = "nothing is in force, since nothing was saved before the agent started"
	case !c.Heard.IsZero():
		view = fmt.Sprintf("the view of %s ago is in force", time.Since(c.Heard).Round(time.Second))
	}
	s.Warnings = append(s.Warnings, model.Fault{Message: fmt.Sprintf("the API server %s does not answer since %s, and %s: %s",
		c.Where, c.Lost.UTC().Format(time.RFC3339), view, c.Error)})
}

// readCounts reads what the kernel has counted; with an error, parts are as last read.
func (a *Agent) readCounts(ctx context.Context) (counts, error) {
	pools, err := a.nat.Counters(ctx)
	if err != nil {
		err = fmt.Errorf("counting translated connections: %w", err)
	}
	dropped, failed := a.nat.Dropped(ctx)
	return counts{pools, dropped}, errors.Join(err, failed)
}

// ready says whether the kernel holds the newest plan, and if not why.
func ready(loop reconcile.State, held datastore.State) (bool, string) {
	if loop.Version < held.Version {
		return false, "the agent has read newer resources and is about to apply them"
	}
	ok, reason := loop.Ready()
	if !ok && held.Snapshot == nil && len(held.Faults) > 0 {
		reason += ": " + held.Faults[0].String()
	}
	return ok, reason
}

func natStatus(n *compile.NAT) *NATStatus {
	to := func(a netip.Addr) string {
		if a.IsValid() {
			return a.String()
		}
		return "node"
	}
	return &NATStatus{SourceRanges: len(n.Sources), ExemptRanges: len(n.Exempt), OutInterfaces: n.OutInterfaces, To4: to(n.To4), To6: to(n.To6),
		Ports: n.Ports.String(), UDPPorts: n.UDPPorts.String(), PortAllocation: n.Allocation}
}

// collectContact makes the metrics of how an API server answers.
func collectContact(c datastore.Contact, send func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string)) {
	up := 0.0
	if !c.Heard.IsZero() && c.Lost.IsZero() {
		up = 1
	}
	send(desc("api_up", "1 while the API server answers; 0 while it does not, or was not heard of yet."), prometheus.GaugeValue, up)
	send(desc("api_refused_requests", "Lists and watches of resources that the API server refuses."), prometheus.GaugeValue, float64(len(c.Problems)))
	if !c.Heard.IsZero() {
		send(desc("api_last_heard_timestamp_seconds", "When the API server was last heard of, about once a minute where nothing changes."), prometheus.GaugeValue,
			float64(c.Heard.UnixMilli())/1000)
	}
}

// collector gives Prometheus what status says, read when it is asked for.
type collector struct{ agent *Agent }

// desc describes a metric of Sallyport's own; docs/reference/metrics.md lists them.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sallyport_"+name, help, labels, nil)
}

// Describe announces nothing: the metrics are made when asked for.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect makes the metrics.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	s, err := c.agent.status(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(desc("translated_connections_total", "Connections translated, by the pool that decided."), err)
	}
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	truth := map[bool]float64{true: 1}
	send(desc("ready", "1 when the kernel was read back and equals the plan."), prometheus.GaugeValue, truth[s.Ready])
	send(desc("resource_faults", "Faults in the manifests, or in what the API serves; while there is one, the last good state stays in force."), prometheus.GaugeValue, float64(len(s.Faults)))
	resources := desc("resources", "Resources in force, by kind.", "kind")
	send(resources, prometheus.GaugeValue, float64(s.Resources.Pools), "IPPool")
	send(resources, prometheus.GaugeValue, float64(s.Resources.NATConfigurations), "NATConfiguration")
	send(resources, prometheus.GaugeValue, float64(s.Resources.Nodes), "Node")
	if s.API != nil {
		collectContact(c.agent.store.Contact(), send)
	}
	if s.NAT != nil {
		send(desc("source_ranges", "Disjoint ranges of addresses whose connections are translated."), prometheus.GaugeValue, float64(s.NAT.SourceRanges))
		send(desc("exempt_ranges", "Ranges of destinations that are not translated."), prometheus.GaugeValue, float64(s.NAT.ExemptRanges))
	}
	ready := desc("driver_ready", "1 when the driver's part of the kernel equals the plan.", "driver")
	applies := desc("driver_applies_total", "Attempts to bring a plan to the kernel.", "driver")
	failures := desc("driver_failures_total", "Attempts that failed.", "driver")
	repairs := desc("driver_repairs_total", "Times that the kernel had been changed behind the driver's back.", "driver")
	for _, d := range s.Drivers {
		send(ready, prometheus.GaugeValue, truth[d.Ready], d.Name)
		send(applies, prometheus.CounterValue, float64(d.Applies), d.Name)
		send(failures, prometheus.CounterValue, float64(d.Failures), d.Name)
		send(repairs, prometheus.CounterValue, float64(d.Repairs), d.Name)
	}
	collectFlows(s.Flows, send)
	collectNetwork(s.Network, send)
	if n := c.agent.network; n != nil {
		if err := n.speaker.collectBGP(ctx, send); err != nil {
			out <- prometheus.NewInvalidMetric(desc("bgp_sessions", "BGP sessions.", "state"), err)
		}
	}
	c.agent.collectDiagnosis(send)
	if err != nil {
		return
	}
	if g := s.LeakGuard; g != nil {
		dropped := desc("leak_guard_dropped_total", "Packets dropped by the leak guard.", "direction")
		send(dropped, prometheus.CounterValue, float64(g.DroppedOut), "out")
		send(dropped, prometheus.CounterValue, float64(g.DroppedIn), "in")
	}
	translated := desc("translated_connections_total", "Connections translated, by the pool that decided.", "pool")
	for _, p := range s.Pools {
		if p.NATOutgoing {
			send(translated, prometheus.CounterValue, float64(p.TranslatedConnections), p.Name)
		}
	}
}
