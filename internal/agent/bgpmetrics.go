package agent

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport/sallyport/internal/driver/bgp"
)

// maxSeries bounds the sessions that have metrics of their own: a mesh of many nodes has one for each.
const maxSeries = 64

// collectBGP makes the metrics of BGP; none where the node has no peer.
func (s *speaker) collectBGP(ctx context.Context, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) error {
	st, err := s.driver.Glance(ctx)
	if err == nil && st.Plan.Run {
		collectSessions(&st, send)
	}
	return err
}

func collectSessions(st *bgp.State, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
	up := 0
	for i := range st.Sessions {
		if st.Sessions[i].Up {
			up++
		}
	}
	sessions := desc("bgp_sessions", "BGP sessions that the node is asked to have, by how they stand: up, or down.", "state")
	send(sessions, prometheus.GaugeValue, float64(up), "up")
	send(sessions, prometheus.GaugeValue, float64(len(st.Sessions)-up), "down")
	blocks := desc("bgp_blocks", "Blocks of this node, by whether peers are told of them: announced, or withheld.", "state")
	send(blocks, prometheus.GaugeValue, float64(len(st.Announced)), "announced")
	send(blocks, prometheus.GaugeValue, float64(withheld(st)), "withheld")
	send(desc("bgp_learned_routes", "Routes of BGP peers that the node believes."), prometheus.GaugeValue, float64(st.Learned))
	send(desc("bgp_strangers_total", "Connections to the port of BGP from addresses that are no peer's."), prometheus.CounterValue, float64(st.Strangers))
	send(desc("bgp_bfd_dropped_total", "Packets of BFD that were dropped, since they did not come from a link of the node."), prometheus.CounterValue, float64(st.Forwarded))
	truth := map[bool]float64{true: 1}
	isUp := desc("bgp_session_up", "1 while the BGP session is up.", "peer")
	resets := desc("bgp_session_resets_total", "Times that the BGP session ended.", "peer")
	routes := desc("bgp_session_routes", "Routes of a BGP session, by what becomes of them: received, accepted of these, or told to the peer.", "peer", "kind")
	for i := range st.Sessions[:min(len(st.Sessions), maxSeries)] {
		s := &st.Sessions[i]
		peer := s.Address.String()
		send(isUp, prometheus.GaugeValue, truth[s.Up], peer)
		send(resets, prometheus.CounterValue, float64(s.Resets), peer)
		send(routes, prometheus.GaugeValue, float64(s.In), peer, "received")
		send(routes, prometheus.GaugeValue, float64(s.Accepted), peer, "accepted")
		send(routes, prometheus.GaugeValue, float64(s.Out), peer, "told")
	}
}
