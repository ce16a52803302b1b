package nat

import (
	"context"
	"net/netip"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// Check looks for what time does not heal, as nftables.Engine.Check does, for every plan there may be.
func (d *Driver) Check(ctx context.Context) error {
	t, err := layout(rehearsal(), true)
	if err != nil {
		return err
	}
	return d.Engine.Check(ctx, t)
}

// rehearsal is a plan in which every kind of rule and set occurs.
func rehearsal() compile.NAT {
	four, six := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")
	return compile.NAT{
		Sources: []compile.Source{{Range: netipx.RangeOfPrefix(four)}, {Range: netipx.RangeOfPrefix(six)}},
		Exempt:  []netipx.IPRange{netipx.RangeOfPrefix(four), netipx.RangeOfPrefix(six)},
		To4:     four.Addr().Next(), // and IPv6 to the interface's address
		Ports:   model.PortRange{First: 1024, Last: 65535}, UDPPorts: model.PortRange{First: 1024, Last: 65535},
		OutInterfaces: []string{"rehearsal"},
		Allocation:    model.PortsFullyRandom,
		LeakGuard:     true,
	}
}
