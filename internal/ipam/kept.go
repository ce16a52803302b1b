package ipam

import (
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"
	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/model"
)

// Kept is a range that pools must not give out: a subnet that the node itself is in, or an address of a Node. A block that overlaps
// such a subnet, or that has the address of another Node, is not claimed at all: its route would take packets away from these machines.
type Kept struct {
	CIDR netip.Prefix // masked
	Link string       // the interface of this node that has it
	Node string       // the other Node that has it; with neither, this node does
}

func (k Kept) String() string {
	what := "subnet " + k.CIDR.String()
	if k.CIDR.IsSingleIP() {
		what = "address " + k.CIDR.Addr().String()
	}
	switch {
	case k.Node != "":
		return what + " of Node " + k.Node
	case k.Link != "":
		return what + " of this node's interface " + k.Link
	default:
		return what + " of this node"
	}
}

// around is what must not be given out for the sake of k, of a pool with a block size.
func (k Kept) around(blockSize int) netip.Prefix {
	if k.CIDR.IsSingleIP() && k.Node == "" { // this node may have addresses of its own blocks
		return k.CIDR
	}
	return netip.PrefixFrom(k.CIDR.Addr(), min(blockSize, k.CIDR.Bits())).Masked()
}

// Keep reserves what pools for pods and tunnels must not give out. It returns the ranges that have to do with such a pool.
func Keep(reserved *netipx.IPSetBuilder, pools []Pool, kept iter.Seq[Kept]) (concerned []Kept) {
	var sizes bart.Table[int] // of blocks
	for _, p := range pools {
		if !p.Disabled && p.AllowedUses&(model.UseWorkload|model.UseTunnel) != 0 {
			sizes.Insert(p.CIDR, p.BlockSize)
		}
	}
	for k := range kept {
		if !sizes.OverlapsPrefix(k.CIDR) {
			continue
		}
		concerned = append(concerned, k)
		reserved.AddPrefix(k.CIDR)
		for _, size := range sizes.Supernets(k.CIDR) {
			reserved.AddPrefix(k.around(size))
		}
	}
	return concerned
}
