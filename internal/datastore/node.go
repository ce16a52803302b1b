package datastore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/internal/model"
)

// nodeObject is the part of a Node of group "", version v1, that matters here.
type nodeObject struct {
	Metadata struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`

		Annotations struct {
			Addresses string `json:"sallyport.dev/network-addresses"`
			Tunnels   string `json:"sallyport.dev/tunnel-addresses"`
			ASNumber  string `json:"projectcalico.org/ASNumber"`
			ClusterID string `json:"projectcalico.org/RouteReflectorClusterID"`
		} `json:"annotations"`
	} `json:"metadata"`
	Status struct {
		Addresses []struct {
			Type    string `json:"type"`
			Address string `json:"address"`
		} `json:"addresses"`
	} `json:"status"`
}

// Node converts the JSON of a Node. Its addresses are those of the types InternalIP and then ExternalIP, each once;
// host names are left out. What its agent says of it is in annotations, and so is what an operator says of it to BGP.
func Node(data []byte) (model.Node, error) {
	var in nodeObject
	if err := json.Unmarshal(data, &in); err != nil {
		return model.Node{}, fmt.Errorf("decoding a Node: %w", err)
	}
	out := model.Node{Name: in.Metadata.Name, Labels: in.Metadata.Labels}
	for _, kind := range []string{"InternalIP", "ExternalIP"} {
		for i, a := range in.Status.Addresses {
			if a.Type != kind {
				continue
			}
			addr, err := netip.ParseAddr(a.Address)
			if err != nil {
				return model.Node{}, fmt.Errorf("status.addresses[%d].address: %w", i, err)
			}
			if addr = addr.Unmap(); !slices.Contains(out.Addresses, addr) {
				out.Addresses = append(out.Addresses, addr)
			}
		}
	}
	said, err := Announced(AnnotationNetworkAddresses, in.Metadata.Annotations.Addresses)
	tunnels, err2 := Announced(AnnotationTunnelAddresses, in.Metadata.Annotations.Tunnels)
	out.NetworkAddresses, out.Tunnels = said, tunnels
	var err3, err4 error
	out.ASN, err3 = ASNumber(in.Metadata.Annotations.ASNumber)
	out.ClusterID, err4 = ClusterID(in.Metadata.Annotations.ClusterID)
	return out, errors.Join(err, err2, err3, err4)
}
