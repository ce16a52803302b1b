package cni

import (
	"fmt"
	"hash/fnv"
)

// LinkPrefix is how the names of all devices of workloads begin.
const LinkPrefix = "sly"

// LinkName is the name of the device on the node that belongs to an interface of a container: LinkPrefix and 12
// hexadecimal digits, the 15 characters that the kernel allows. network is a NetworkHash. Plugin and agent derive the same
// name, so that the plugin can remove the device where there is no agent, and an upgraded agent finds those of the one before
// it: it must never change. Two names that are equal by chance, one in 2^48, are told apart by the device's alias.
func LinkName(network, container, iface string) string {
	return LinkPrefix + digits(48, network, container, iface)
}

// NetworkHash stands for the name of a network configuration, which may be long, in the alias of a device: 8 hexadecimal
// digits. As LinkName it must never change.
func NetworkHash(name string) string { return digits(32, name) }

// digits are the upper bits of FNV-1a, which unlike a cryptographic hash costs the plugin no half a megabyte. The parts are
// separated by a byte that none of them can contain.
func digits(bits int, parts ...string) string {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p)) // never fails
		_, _ = h.Write([]byte{0})
	}
	return fmt.Sprintf("%0*x", bits/4, h.Sum64()>>(64-bits))
}
