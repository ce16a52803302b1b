package ipam

import (
	"net/netip"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

// freeBlock is a block of a pool that no node owns, with an address that is not reserved. It is drawn among all of these, so
// that nodes that look at the same time seldom choose the same one. A pool may have more blocks than can be listed.
func freeBlock(p *model.Pool, owned, reserved *netipx.IPSet, rnd Random) (netip.Prefix, bool) {
	var b netipx.IPSetBuilder
	b.AddPrefix(p.CIDR)
	b.RemoveSet(owned)
	b.RemoveSet(reserved)
	rest, err := b.IPSet()
	if err != nil { // no prefix here is invalid
		return netip.Prefix{}, false
	}
	prefixes := rest.Prefixes()
	if len(prefixes) == 0 {
		return netip.Prefix{}, false
	}
	at := prefixes[rnd()%uint64(len(prefixes))]
	inside := p.BlockSize - at.Bits()
	if inside <= 0 { // part of a block, of which the rest is reserved
		return netip.PrefixFrom(at.Addr(), p.BlockSize).Masked(), true
	}
	// The bits between the prefix and its blocks are drawn.
	a := at.Addr().As16()
	offset := 128 - at.Addr().BitLen()
	for bit := at.Bits(); bit < p.BlockSize; bit++ {
		if rnd()&1 == 1 {
			a[(offset+bit)/8] |= 0x80 >> ((offset + bit) % 8)
		}
	}
	addr := netip.AddrFrom16(a)
	if at.Addr().Is4() {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, p.BlockSize), true
}
