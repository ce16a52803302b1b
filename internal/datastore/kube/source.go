package kube

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// source is a kind that a CustomResourceDefinition defines, and where Sallyport's has it in the API.
type source struct {
	kind     string
	at       schema.GroupVersionResource
	optional bool // the view is whole also without a definition
	network  bool // it is read only where Sallyport is the pod network
}

// sources are all kinds that are read beside Nodes.
func sources(network bool) []source {
	all := []source{
		{kind: datastore.KindIPPool, at: IPPools},
		{kind: datastore.KindNATConfiguration, at: NATConfigurations, optional: true},
		{kind: datastore.KindIPReservation, at: IPReservations, optional: true, network: true},
		{kind: datastore.KindNodeNetworkConfiguration, at: NodeNetworkConfigurations, optional: true, network: true},
		{kind: datastore.KindIPBlock, at: IPBlocks, network: true},
		{kind: datastore.KindBGPPeer, at: BGPPeers, optional: true, network: true},
		{kind: datastore.KindBGPConfiguration, at: BGPConfigurations, optional: true, network: true},
		{kind: datastore.KindBGPFilter, at: BGPFilters, optional: true, network: true},
	}
	return slices.DeleteFunc(all, func(s source) bool { return s.network && !network })
}

// sourceOf is the source of a kind; the zero value where it is none.
func sourceOf(kind string) source {
	for _, s := range sources(true) {
		if s.kind == kind {
			return s
		}
	}
	return source{}
}

// snapshotOf makes a snapshot of the entries of each kind.
func snapshotOf(of func(kind string) []*entry) *model.Snapshot {
	return &model.Snapshot{
		Pools:             values[*model.Pool](of(datastore.KindIPPool)),
		NATConfigurations: values[model.NATConfiguration](of(datastore.KindNATConfiguration)),
		Nodes:             values[model.Node](of(datastore.KindNode)),

		Reservations:              values[model.Reservation](of(datastore.KindIPReservation)),
		NodeNetworkConfigurations: values[model.NodeNetworkConfiguration](of(datastore.KindNodeNetworkConfiguration)),
		Blocks:                    values[*model.Block](of(datastore.KindIPBlock)),
		BGPPeers:                  values[model.BGPPeer](of(datastore.KindBGPPeer)),
		BGPConfigurations:         values[model.BGPConfiguration](of(datastore.KindBGPConfiguration)),
		BGPFilters:                values[model.BGPFilter](of(datastore.KindBGPFilter)),
	}
}

// keep puts into a snapshot what an older one has of the kinds of which nothing changed: there may be thousands.
func keep(next, was *model.Snapshot, changed func(kind string) bool) {
	if !changed(datastore.KindIPPool) {
		next.Pools = was.Pools
	}
	if !changed(datastore.KindNATConfiguration) {
		next.NATConfigurations = was.NATConfigurations
	}
	if !changed(datastore.KindNode) {
		next.Nodes = was.Nodes
	}
	if !changed(datastore.KindIPReservation) {
		next.Reservations = was.Reservations
	}
	if !changed(datastore.KindNodeNetworkConfiguration) {
		next.NodeNetworkConfigurations = was.NodeNetworkConfigurations
	}
	if !changed(datastore.KindIPBlock) {
		next.Blocks = was.Blocks
	}
	if !changed(datastore.KindBGPPeer) {
		next.BGPPeers = was.BGPPeers
	}
	if !changed(datastore.KindBGPConfiguration) {
		next.BGPConfigurations = was.BGPConfigurations
	}
	if !changed(datastore.KindBGPFilter) {
		next.BGPFilters = was.BGPFilters
	}
}

func values[T any](entries []*entry) []T {
	out := make([]T, len(entries))
	for i, e := range entries {
		out[i] = e.value.(T)
	}
	return out
}
