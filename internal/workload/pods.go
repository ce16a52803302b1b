package workload

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/sallyport/sallyport/internal/cni"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/ipam"
)

// annotated takes what a pod, and then its namespace, say about pools and addresses.
func annotated(out *ipam.Request, pod *datastore.PodInfo) error {
	for _, family := range []struct {
		key  string
		into *[]string
	}{{datastore.AnnotationPools4, &out.Wish.Pools4}, {datastore.AnnotationPools6, &out.Wish.Pools6}} {
		for _, from := range []struct {
			what string
			of   map[string]string
		}{{"pod", pod.Annotations}, {"namespace", pod.NamespaceAnnotations}} {
			text, there := from.of[family.key]
			if !there {
				continue
			}
			names := []string{}
			if err := json.Unmarshal([]byte(text), &names); err != nil || len(names) == 0 {
				return misread(from.what, family.key, text, `names or CIDRs of pools, such as ["pool-a"]`)
			}
			*family.into = names
			break
		}
	}
	text, there := pod.Annotations[datastore.AnnotationAddresses]
	if !there {
		return nil
	}
	var addresses []netip.Addr
	if err := json.Unmarshal([]byte(text), &addresses); err != nil || len(addresses) == 0 {
		return misread("pod", datastore.AnnotationAddresses, text, `addresses, such as ["10.244.0.7"]`)
	}
	out.Addresses = nil
	for _, a := range addresses {
		out.Addresses = append(out.Addresses, a.Unmap().WithZone(""))
	}
	return nil
}

func misread(what, key, text, right string) error {
	return &cni.Error{Code: codeNoAddress, Message: fmt.Sprintf("the %s's annotation %s is %.200q, which is no JSON list of %s", what, key, text, right)}
}
