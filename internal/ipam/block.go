package ipam

import (
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"
)

// Block is a piece of a pool that one node owns.
type Block struct {
	CIDR netip.Prefix
	Pool string // the name of the pool from which it was claimed
}

// block is one that this node owns, with what is in use in it.
type block struct {
	Block
	used    map[netip.Addr]string // by whom
	cooling []cooled              // the oldest first
	last    netip.Addr            // given out last; the next one is behind it
}

// cooled is an address that was given back.
type cooled struct {
	addr netip.Addr
	at   time.Time
	pod  string // that had it
}

// first is where the search in a block begins: behind the highest address in use, or anywhere where none is, since what was
// given out before a reboot may still be talked to.
func (b *block) first(rnd Random) netip.Addr {
	var highest netip.Addr
	for a := range b.used {
		if !highest.IsValid() || highest.Less(a) {
			highest = a
		}
	}
	if highest.IsValid() {
		return highest
	}
	return nth(b.CIDR, rnd()%size(b.CIDR))
}

// free is the next address that is neither in use, nor cools down, nor is reserved.
func (b *block) free(reserved *netipx.IPSet) (netip.Addr, bool) {
	n, start := size(b.CIDR), index(b.CIDR, b.last)
	for i := range n {
		a := nth(b.CIDR, (start+1+i)%n)
		if _, used := b.used[a]; !used && b.cools(a) < 0 && !reserved.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// oldest is when the address that cools down for longest, and is not reserved, was given back.
func (b *block) oldest(reserved *netipx.IPSet) (c cooled, ok bool) {
	for _, c := range b.cooling {
		if !reserved.Contains(c.addr) {
			return c, true
		}
	}
	return c, false
}

// cools is the index of an address among those that cool down, or -1.
func (b *block) cools(a netip.Addr) int {
	return slices.IndexFunc(b.cooling, func(c cooled) bool { return c.addr == a })
}

// take notes that an address is in use.
func (b *block) take(a netip.Addr, by string) {
	if i := b.cools(a); i >= 0 {
		b.cooling = slices.Delete(b.cooling, i, i+1)
	}
	b.used[a] = by
}

// maxBits bounds the size of a block to 2^20 addresses: pools allow no larger one.
const maxBits = 20

// size is how many addresses a block has.
func size(p netip.Prefix) uint64 { return 1 << min(p.Addr().BitLen()-p.Bits(), maxBits) }

// nth is the i-th address of a block.
func nth(p netip.Prefix, i uint64) netip.Addr {
	b := p.Addr().As16()
	for k := 15; i > 0; k-- {
		i += uint64(b[k])
		b[k] = byte(i)
		i >>= 8
	}
	if a := netip.AddrFrom16(b); p.Addr().Is6() {
		return a
	}
	return netip.AddrFrom16(b).Unmap()
}

// index is the place of an address in its block.
func index(p netip.Prefix, a netip.Addr) (i uint64) {
	first, b := p.Addr().As16(), a.As16()
	for k := 12; k < 16; k++ {
		i = i<<8 | uint64(b[k]-first[k])
	}
	return i
}
