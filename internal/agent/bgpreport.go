package agent

import (
	"cmp"
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/driver/bgp"
	"github.com/sallyport/sallyport/internal/text"
)

// Bounds of a SallyportNode's part about BGP, as its definition has them.
const (
	maxBGPPeers    = 64
	maxBGPSessions = 64
	maxBGPWhy      = 256
)

// report is how BGP stands, for the API; nil where nothing asks the node to speak it.
func (s *speaker) report(ctx context.Context) (*v1alpha1.NodeBGP, error) {
	st, err := s.driver.Glance(ctx)
	if err != nil || !st.Plan.Run && len(st.Plan.Asked) == 0 {
		return nil, err
	}
	return reportOf(&st), nil
}

func reportOf(st *bgp.State) *v1alpha1.NodeBGP {
	out := &v1alpha1.NodeBGP{Sessions: int64(len(st.Sessions))}
	peers := make([]v1alpha1.NodeBGPPeer, 0, len(st.Plan.Asked))
	at := map[string]int{}
	for i := range st.Plan.Asked {
		a := &st.Plan.Asked[i]
		at[a.Resource] = i
		peers = append(peers, v1alpha1.NodeBGPPeer{Name: a.Resource, Generation: a.Generation, Why: text.Clip(a.Why, maxBGPWhy)})
	}
	for i := range st.Sessions {
		s := &st.Sessions[i]
		v := v1alpha1.NodeBGPSession{Peer: s.Address.String(), BGPPeer: s.Resource, Node: s.Node, ASNumber: int64(s.ASN), State: v1alpha1.BGPSessionDown,
			Why: text.Clip(cmp.Or(s.Why, s.Fault), maxBGPWhy), Received: int64(s.In), Accepted: int64(s.Accepted), Told: int64(s.Out)}
		if s.Up {
			v.State = v1alpha1.BGPSessionEstablished
			out.Established++
		}
		if !s.Since.IsZero() {
			since := metav1.NewTime(s.Since).Rfc3339Copy()
			v.Since = &since
		}
		out.List = append(out.List, v)
		if j, asked := at[s.Resource]; asked {
			p := &peers[j]
			p.Sessions++
			if s.Up {
				p.Established++
			}
			p.Why = cmp.Or(p.Why, v.Why)
		}
	}
	slices.SortStableFunc(out.List, func(a, b v1alpha1.NodeBGPSession) int { return cmp.Compare(a.State, b.State) }) // Down, Established
	out.List = slices.Clip(out.List[:min(len(out.List), maxBGPSessions)])
	out.Peers = slices.Clip(peers[:min(len(peers), maxBGPPeers)])
	return out
}
