package compile

import "net/netip"

// hostAddresses are the addresses of nodes that are exempt, with the node that has each.
type hostAddresses map[netip.Addr]string
