package hostaddr

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// ethernet is the length of an Ethernet address. Some tunnels call the IP address that they begin at their permanent one.
const ethernet = 6

// Hardware are the Ethernet addresses that this node's network cards were made with, sorted, be the node a virtual machine and the
// cards too. Those that a program gives, or that are drawn at random, as on a bridge or a pod's link, do not count. A kernel before
// Linux 5.6 names none.
func Hardware() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing this node's network cards: %w", err)
	}
	var out []string
	for _, l := range links {
		if a := l.Attrs().PermHWAddr; len(a) == ethernet {
			out = append(out, a.String())
		}
	}
	slices.Sort(out)
	return out, nil
}
