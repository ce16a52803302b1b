package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/sallyport/sallyport/internal/cni"
)

// config is the network configuration: what CNI has in each, and what is ours.
type config struct {
	types.PluginConf

	Socket   string   `json:"socket"`   // of the agent; empty: cni.Socket
	Families []string `json:"families"` // of the addresses of a pod; empty: those of the pools that serve
	MTU      int      `json:"mtu"`      // of a pod's interface, in bytes; 0: the agent's

	RuntimeConfig struct {
		IPs []string `json:"ips"` // the capability "ips": an address, or one with a prefix length, which says nothing here
	} `json:"runtimeConfig"`
}

// own are the keys of a configuration that are ours, and general those that CNI or a runtime adds. A name with a slash
// belongs to the domain that it begins with.
var (
	own     = []string{"socket", "families", "mtu"}
	general = []string{"cniVersion", "cniVersions", "name", "type", "args", "capabilities", "dns", "prevResult", "runtimeConfig", "disableCheck", "disableGC"}
)

// pod is what a runtime says in CNI_ARGS.
type pod struct {
	types.CommonArgs

	//nolint:staticcheck // the library goes by the names of the fields
	K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID, K8S_POD_INFRA_CONTAINER_ID types.UnmarshallableString

	IP types.UnmarshallableString
}

// request reads the configuration and the environment.
func request(verb string, args *skel.CmdArgs) (*config, *cni.Request, error) {
	c := &config{}
	if err := json.Unmarshal(args.StdinData, c); err != nil {
		return nil, nil, &cni.Error{Code: types.ErrDecodingFailure, Message: "reading the network configuration", Details: err.Error()}
	}
	if c.Socket == "" {
		c.Socket = cni.Socket
	}
	r := &cni.Request{Version: cni.Version, Verb: verb, Network: c.Name, ContainerID: args.ContainerID, Interface: args.IfName}
	if verb == cni.Status || verb == cni.GC {
		r.ContainerID, r.Interface = "", "" // a runtime may leave them in the environment
	}
	if verb == cni.GC {
		var err error
		if r.Attachments, err = attachments(args.StdinData); err != nil {
			return nil, nil, err
		}
	}
	if verb == cni.Del || verb == cni.GC {
		return c, r, r.Validate() // that goes on also where the configuration has become wrong
	}
	if err := unknown(args.StdinData); err != nil {
		return nil, nil, err
	}
	var p pod
	if err := types.LoadArgs(args.Args, &p); err != nil {
		return nil, nil, &cni.Error{Code: cni.CodeEnvironment, Message: "reading CNI_ARGS", Details: err.Error()}
	}
	if p.K8S_POD_NAMESPACE != "" || p.K8S_POD_UID != "" { // without both, podman names a container so, which is not a pod
		r.Namespace, r.Pod, r.UID = string(p.K8S_POD_NAMESPACE), string(p.K8S_POD_NAME), string(p.K8S_POD_UID)
	}
	r.Families, r.MTU = c.Families, c.MTU
	slices.Sort(r.Families)
	wanted := c.RuntimeConfig.IPs
	if p.IP != "" {
		wanted = append(wanted, string(p.IP))
	}
	for _, text := range wanted {
		a, err := address(text)
		if err != nil {
			return nil, nil, err
		}
		if !slices.Contains(r.Addresses, a) {
			r.Addresses = append(r.Addresses, a)
		}
	}
	return c, r, r.Validate()
}

// attachments are those that a runtime still knows. All others lose their network: so a runtime must name them, if only by
// an empty list (null is Go's). The key is of the specification as it is, or as it was in libcni before 1.2.1.
func attachments(conf []byte) ([]cni.Attachment, error) {
	var keys map[string]json.RawMessage
	err := json.Unmarshal(conf, &keys)
	for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
		list, ok := keys[key]
		if !ok {
			continue
		}
		var known []types.GCAttachment
		if err = json.Unmarshal(list, &known); err != nil {
			break
		}
		out := make([]cni.Attachment, 0, len(known))
		for _, a := range known {
			out = append(out, cni.Attachment{ContainerID: a.ContainerID, Interface: a.IfName})
		}
		return out, nil
	}
	if err != nil {
		return nil, &cni.Error{Code: types.ErrDecodingFailure, Message: "reading the network configuration", Details: err.Error()}
	}
	return nil, &cni.Error{Code: cni.CodeConfig, Message: "GC needs cni.dev/valid-attachments, the attachments that the runtime still knows, and the network configuration has no such key",
		Details: "without it, all pods of the network would lose their interfaces; nothing was removed"}
}

// address reads an address with or without a prefix length.
func address(text string) (netip.Addr, error) {
	host, _, _ := strings.Cut(text, "/")
	a, err := netip.ParseAddr(host)
	if err == nil && host != text {
		_, err = netip.ParsePrefix(text)
	}
	if err != nil {
		return netip.Addr{}, &cni.Error{Code: cni.CodeConfig, Message: fmt.Sprintf("%q is asked for, which is no address", text)}
	}
	return a.Unmap(), nil
}

// unknown is an error where the configuration has an unknown key, such as a misspelt one of ours.
func unknown(conf []byte) error {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(conf, &keys); err != nil {
		return &cni.Error{Code: types.ErrDecodingFailure, Message: "reading the network configuration", Details: err.Error()}
	}
	var odd []string
	for key := range keys {
		if !slices.Contains(own, key) && !slices.Contains(general, key) && !strings.Contains(key, "/") {
			odd = append(odd, fmt.Sprintf("%q", key))
		}
	}
	if len(odd) == 0 {
		return nil
	}
	slices.Sort(odd)
	return &cni.Error{Code: cni.CodeConfig, Message: fmt.Sprintf("the network configuration has %s, which sallyport-cni does not know", strings.Join(odd, " and ")),
		Details: "its own keys are " + strings.Join(own, ", ")}
}
