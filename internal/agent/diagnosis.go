package agent

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/driver/foreign"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/driver/nodefacts"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/waiting"
)

// When the node is examined: now and then, and soon after each new plan. What was read of the node is judged again by a
// new plan, and read again only where the plan says other things of the node.
const (
	examineEvery = 30 * time.Second
	// examinePause is the least time before an examination, and at least examineShare times as long as the last
	// one took.
	examinePause = 2 * time.Second
	examineShare = 20
	// examineTimeout bounds one examination.
	examineTimeout = 20 * time.Second
	// portsEvery is the time between two looks at all flows while plans translate to the same.
	portsEvery = time.Minute
	// conntrackWindow is how far back drops are reported.
	conntrackWindow = 5 * time.Minute
)

// diagnosis examines the node in the background. Nothing waits for it, and readiness does not depend on it.
type diagnosis struct {
	// Used by the examining goroutine alone.
	history  []sample // the oldest first
	ports    *diagnose.Ports
	portsErr error           // why they could not be counted
	portsFor target          // of the plan by which ports were counted
	portsAt  time.Time       // when they were
	facts    *diagnose.Facts // what was read last; nil: nothing
	factsFor target
	factsAt  time.Time

	mu   sync.Mutex
	last examined
}

// examined is what the last examination found.
type examined struct {
	at        time.Time // zero before the first
	report    diagnose.Report
	conntrack *diagnose.Conntrack // nil where it could not be read
	ports     *diagnose.Ports     // likewise
}

// sample is what connection tracking had counted at one moment.
type sample struct {
	at        time.Time
	conntrack diagnose.Conntrack
}

// target is the part of a plan on which it depends what is read of the node.
type target struct {
	to4, to6        netip.Addr
	ports, udpPorts model.PortRange
}

func targetOf(plan *compile.Plan) target {
	return target{plan.NAT.To4, plan.NAT.To6, plan.NAT.Ports, plan.NAT.UDPPorts}
}

func (d *diagnosis) get() examined {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// diagnose examines the node until the context ends.
func (a *Agent) diagnose(ctx context.Context) {
	var plan *compile.Plan // the one that was examined last
	due := time.Now().Add(examineEvery)
	rest := examinePause
	if c, err := nodefacts.Conntrack(ctx); err == nil { // what was dropped before is not of today
		a.diagnosis.remember(time.Now(), &diagnose.Facts{Conntrack: c})
	}
	for ctx.Err() == nil {
		s, changed := a.loop.State()
		if s.Plan == plan && time.Now().Before(due) {
			waiting.Sleep(ctx, changed, time.Until(due))
			continue
		}
		// A new plan is brought to the kernel first, and others may follow it at once.
		waiting.Sleep(ctx, nil, rest)
		began := time.Now()
		due = began.Add(examineEvery)
		if s, _ = a.loop.State(); s.Plan != nil && ctx.Err() == nil {
			plan = s.Plan
			if a.examine(ctx, a.resources.get().Snapshot, plan) {
				due = a.diagnosis.factsAt.Add(examineEvery)
			}
		}
		rest = max(examinePause, examineShare*time.Since(began))
	}
}

// examine says how the node stands by a plan, or returns false where the node could not be read.
func (a *Agent) examine(ctx context.Context, s *model.Snapshot, plan *compile.Plan) bool {
	d := &a.diagnosis
	if d.facts == nil || d.factsFor != targetOf(plan) || time.Since(d.factsAt) >= examineEvery {
		f := a.readFacts(ctx, plan)
		if f == nil {
			return false
		}
		d.facts, d.factsFor, d.factsAt = f, targetOf(plan), time.Now()
	}
	now := examined{at: d.factsAt, report: diagnose.Judge(s, plan, d.facts), conntrack: d.facts.Conntrack, ports: d.facts.Ports}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = now
	return true
}

// readFacts reads of the node what diagnosis needs; nil: the agent is being stopped, or it took too long.
func (a *Agent) readFacts(ctx context.Context, plan *compile.Plan) *diagnose.Facts {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	began := time.Now()
	f := &diagnose.Facts{}
	read := func(what string, err error) {
		if err != nil {
			f.Unread = append(f.Unread, diagnose.Unread{What: what, Why: err})
		}
	}
	var err error
	f.Node, err = nodefacts.Node(plan.NAT.To4, plan.NAT.To6)
	read("the node's interfaces and settings", err)
	f.Conntrack, err = nodefacts.Conntrack(ctx)
	read("connection tracking", err)
	f.Rules, err = foreign.Read(ctx, nat.TableName)
	read("the rules of others", err)
	f.Ports, err = a.diagnosis.usedPorts(ctx, a.table, plan)
	read("the ports of translated connections", err)
	a.diagnosis.remember(began, f)
	if ctx.Err() != nil && f.Conntrack == nil {
		return nil // what was found before stays
	}
	return f
}

// remember keeps what connection tracking has counted, and fills in what it had counted a window ago, or longer ago
// where examinations are rarer than that.
func (d *diagnosis) remember(now time.Time, f *diagnose.Facts) {
	if f.Conntrack == nil {
		return
	}
	for len(d.history) > 1 && now.Sub(d.history[0].at) > conntrackWindow {
		d.history = d.history[1:]
	}
	if len(d.history) > 0 {
		f.Earlier, f.Window = &d.history[0].conntrack, now.Sub(d.history[0].at)
	}
	d.history = append(d.history, sample{now, *f.Conntrack})
}

// usedPorts counts the ports of translated flows, or says what was counted not long ago.
func (d *diagnosis) usedPorts(ctx context.Context, table *conntrack.Table, plan *compile.Plan) (*diagnose.Ports, error) {
	if d.portsFor == targetOf(plan) && time.Since(d.portsAt) < portsEvery {
		return d.ports, d.portsErr
	}
	var c *diagnose.PortCounter
	_, err := table.Walk(ctx, func() conntrack.Visit {
		c = diagnose.NewPortCounter(&plan.NAT) // anew for each try
		return func(f *conntrack.Flow) conntrack.Action {
			c.Add(f.Protocol, f.Original.Source.Addr(), f.Reply.Destination, f.Reply.Source)
			return conntrack.Leave
		}
	})
	d.ports, d.portsErr, d.portsFor, d.portsAt = nil, err, targetOf(plan), time.Now()
	if err == nil {
		d.ports = c.Result()
	}
	return d.ports, err
}

// addDiagnosis adds what the last examination found to a status.
func (a *Agent) addDiagnosis(s *Status) {
	last := a.diagnosis.get()
	s.Examined, s.Problems = last.at, append([]diagnose.Problem{}, last.report.Problems...)
	s.Ports = last.ports
	if c := last.conntrack; c != nil {
		s.Conntrack = &ConntrackStatus{Entries: c.Entries, Limit: c.Limit, InsertFailed: c.InsertFailed, Dropped: c.Dropped}
	}
}

// collectDiagnosis makes the metrics of what the last examination found.
func (a *Agent) collectDiagnosis(send func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string)) {
	last := a.diagnosis.get()
	problem := desc("problem", "Problems that stand in the way of the plan, by kind.", "kind")
	for kind, n := range last.report.Counts {
		send(problem, prometheus.GaugeValue, float64(n), string(kind))
	}
	if c := last.conntrack; c != nil {
		send(desc("conntrack_entries", "Entries in the conntrack table."), prometheus.GaugeValue, float64(c.Entries))
		send(desc("conntrack_limit", "Entries that the conntrack table may have; 0: no limit."), prometheus.GaugeValue, float64(c.Limit))
		send(desc("conntrack_insert_failed_total", "Connections dropped since no conntrack entry could be made, above all for want of a free port."),
			prometheus.CounterValue, float64(c.InsertFailed))
		send(desc("conntrack_dropped_total", "Packets dropped by connection tracking, for that reason or since the table was full."),
			prometheus.CounterValue, float64(c.Dropped))
	}
	if last.ports == nil {
		return
	}
	used := desc("ports_used", "Source ports of a translated address that are in use.", "address", "protocol")
	for _, p := range last.ports.Addresses {
		send(used, prometheus.GaugeValue, float64(p.Ports), p.Address.String(), p.Protocol)
	}
	share := 0.0
	for _, p := range last.ports.Destinations {
		share = max(share, float64(p.Used)/float64(p.Available))
	}
	send(desc("busiest_destination_ports_ratio", "Share of the source ports in use towards the destination where it is highest."), prometheus.GaugeValue, share)
}
