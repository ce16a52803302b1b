// Command sallyport-cni is the CNI plugin: it asks the agent of its node for a pod's network, and prints what the agent has
// made. It speaks CNI 1.1.0, 1.0.0, 0.4.0 and 0.3.1, https://github.com/containernetworking/cni/blob/main/SPEC.md.
//
// The runtime starts it for each pod, with all rights: so it is small, and all that decides is in the agent. Two things the
// plugin does itself: it opens the pod's network namespace, and it removes a pod's device when there is no agent.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/sallyport/sallyport/internal/cni"
)

// release is set by the linker.
var release = "unknown"

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check, GC: gc, Status: status},
		version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"),
		"sallyport-cni "+release+", the CNI plugin of Sallyport: a container runtime starts it")
}

func add(args *skel.CmdArgs) error {
	c, r, err := request(cni.Add, args)
	if err != nil {
		return reported(err)
	}
	if len(c.RawPrevResult) > 0 {
		return types.NewError(types.ErrInvalidNetworkConfig, "sallyport-cni makes the pod's interface: it must come first in the list of plugins", "")
	}
	files, err := reach(args.Netns, r.Families)
	if err != nil {
		return reported(err)
	}
	defer cni.Close(files)
	made, err := persist(context.Background(), c.Socket, r, files)
	if err != nil {
		return reported(err)
	}
	return types.PrintResult(resultOf(made, args.Netns, c.DNS), c.CNIVersion)
}

func check(args *skel.CmdArgs) error {
	c, r, err := request(cni.Check, args)
	if err != nil {
		return reported(err)
	}
	if r.Prev, err = previous(c, r); err != nil {
		return reported(err)
	}
	files, err := reach(args.Netns, nil)
	if err != nil {
		return reported(err)
	}
	defer cni.Close(files)
	return reported(once(c.Socket, r, files...))
}

// del must succeed where nothing is left to delete, whatever has become of the configuration or of the namespace.
func del(args *skel.CmdArgs) error {
	c, r, err := request(cni.Del, args)
	if err != nil {
		return reported(err)
	}
	err = once(c.Socket, r)
	refused, _ := errors.AsType[*cni.Error](err)
	if errors.Is(err, cni.ErrAway) || errors.Is(err, cni.ErrLost) || refused != nil && refused.Code == cni.CodeProtocol {
		// An agent that comes later sees that the device has gone.
		if alone := deleteLink(cni.LinkName(cni.NetworkHash(r.Network), r.ContainerID, r.Interface)); alone != nil {
			return reported(fmt.Errorf("%w; deleting the device without the agent: %w", err, alone))
		}
		return nil
	}
	return reported(err)
}

func gc(args *skel.CmdArgs) error {
	c, r, err := request(cni.GC, args)
	if err != nil {
		return reported(err)
	}
	return reported(once(c.Socket, r))
}

func status(args *skel.CmdArgs) error {
	c, r, err := request(cni.Status, args)
	if err != nil {
		return reported(err)
	}
	err = once(c.Socket, r)
	if errors.Is(err, cni.ErrAway) || errors.Is(err, cni.ErrLost) {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	return reported(err)
}

// reported is an error as CNI prints it.
func reported(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*cni.Error](err); ok {
		return types.NewError(e.Code, e.Message, e.Details)
	}
	if errors.Is(err, cni.ErrAway) || errors.Is(err, cni.ErrLost) {
		return types.NewError(types.ErrTryAgainLater, err.Error(), "is the agent of this node running, and does the network configuration name its socket?")
	}
	return types.NewError(cni.CodeFailed, err.Error(), "")
}
