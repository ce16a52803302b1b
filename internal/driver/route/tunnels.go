package route

import (
	"context"
	"net/netip"
)

// Tunnels are the addresses that the kernel has on our VXLAN devices: an agent that starts goes on with
// the ones of the agent before it. At most one of each family, IPv4 first.
func (d *Driver) Tunnels(ctx context.Context) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []netip.Addr
	for f := range deviceNames {
		dev, err := d.readDevice(ctx, f)
		if err != nil {
			return nil, err
		}
		if dev != nil && dev.kind == "vxlan" && len(dev.addresses) > 0 {
			out = append(out, dev.addresses[0].Addr())
		}
	}
	return out, nil
}
