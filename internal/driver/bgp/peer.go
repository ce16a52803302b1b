package bgp

import (
	"time"

	"github.com/osrg/gobgp/v4/api"
	"google.golang.org/protobuf/proto"

	"github.com/sallyport/sallyport/internal/compile"
)

// connectRetry is the time between two attempts to connect, in seconds; gobgp's own is 120.
const connectRetry = 5

// idle is how long no session is tried after BFD has ended one, in seconds; gobgp's own is 30.
const idle = 1

// peerOf is a peer in gobgp's form.
func peerOf(p *compile.BGPPeer, password string, deferral time.Duration) *api.Peer {
	out := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: p.Address.String(), PeerAsn: p.ASN, LocalAsn: p.LocalASN, AuthPassword: password,
			AllowOwnAsn: uint32(p.AllowedLocalASNs)},
		Timers:          &api.Timers{Config: &api.TimersConfig{ConnectRetry: connectRetry, IdleHoldTimeAfterReset: idle, HoldTime: seconds(p.Hold), KeepaliveInterval: seconds(p.Keepalive)}},
		Transport:       &api.Transport{RemotePort: uint32(p.Port)},
		GracefulRestart: &api.GracefulRestart{Enabled: true, RestartTime: uint32(seconds(p.Restart)), DeferralTime: uint32(seconds(deferral))},
	}
	if source := p.Source; source.IsValid() {
		if source.Is6() && source.IsLinkLocalUnicast() {
			source = source.WithZone(p.Address.Zone())
		}
		out.Transport.LocalAddress = source.String()
	}
	if p.TTLSecurity > 0 {
		out.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(p.TTLSecurity)}
	} else if p.Multihop {
		out.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: 255}
	}
	if p.Reflect {
		out.RouteReflector = &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: p.ClusterID.String()}
	}
	for i, on := range []bool{p.V4, p.V6} {
		if !on {
			continue
		}
		family := &api.Family{Afi: []api.Family_Afi{api.Family_AFI_IP, api.Family_AFI_IP6}[i], Safi: api.Family_SAFI_UNICAST}
		out.AfiSafis = append(out.AfiSafis, &api.AfiSafi{Config: &api.AfiSafiConfig{Family: family, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: true}},
			PrefixLimits:      &api.PrefixLimit{Family: family, MaxPrefixes: p.MaxPrefixes}})
	}
	return out
}

// lasting is the part of a peer that does not change without its session ending. The rest gobgp changes in place.
func lasting(p *api.Peer) *api.Peer {
	p = proto.CloneOf(p)
	p.Timers = nil
	for _, f := range p.AfiSafis {
		f.PrefixLimits = nil
	}
	return p
}

// Resets says whether the session of a peer ends where it is to become another one, but for its password, which this cannot see. Where
// BFD ends, or begins again with other times, the peer takes that for the end of this node: gobgp says no goodbye.
func Resets(was, now *compile.BGPPeer) bool {
	return was.BFD.Interval > 0 && was.BFD != now.BFD || was.Password != now.Password || !proto.Equal(lasting(peerOf(was, "", deferral)), lasting(peerOf(now, "", deferral)))
}

// seconds rounds up: a hold time of 0 would stand for none.
func seconds(d time.Duration) uint64 { return uint64((d + time.Second - 1) / time.Second) }
