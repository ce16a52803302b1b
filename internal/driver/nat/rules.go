package nat

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
)

// family is what the table must know of an address family.
type family struct {
	nftables.Family
	suffix string // of the names of sets and chains
	name   string // for people
}

func families() []family { return []family{ipv4(), ipv6()} }

func ipv4() family { return family{nftables.IPv4(), "4", "IPv4"} }

func ipv6() family { return family{nftables.IPv6(), "6", "IPv6"} }

// holds says whether a range is of the family.
func (f family) holds(r netipx.IPRange) bool { return r.From().Is4() == (f.Proto == unix.NFPROTO_IPV4) }

// to is the address that the family is translated to, if it is not that of the interface.
func (f family) to(nat compile.NAT) netip.Addr {
	if f.Proto == unix.NFPROTO_IPV4 {
		return nat.To4
	}
	return nat.To6
}

// set is a set of ranges of the family, without any.
func (f family) set(name string) nftables.Set {
	return nftables.Set{Name: name + f.suffix, Key: []nftables.Type{f.Addr}, Ranges: true}
}

// translate ends a rule by translating the source to an address, or to that of the outgoing interface if there is
// none, and to a port of a range, if there is one.
func translate(f family, to netip.Addr, ports model.PortRange, how model.PortAllocation) nftables.Term {
	if !to.IsValid() {
		return masquerade(ports, how)
	}
	nat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.Proto), RegAddrMin: nftables.Reg1, RegAddrMax: nftables.Reg1,
		Random: how == model.PortsRandom, FullyRandom: how == model.PortsFullyRandom}
	terms := nftables.Terms{nftables.Needs("nat", "nft_nat"), nftables.Expr(&expr.Immediate{Register: nftables.Reg1, Data: to.AsSlice()})}
	if !ports.IsZero() {
		terms = append(terms, loadPorts(nftables.Reg2, nftables.Reg3, ports))
		nat.RegProtoMin, nat.RegProtoMax, nat.Specified = nftables.Reg2, nftables.Reg3, true
	}
	return append(terms, nftables.Expr(nat))
}

// masquerade is written by hand: the library leaves the flags out if there are ports.
func masquerade(ports model.PortRange, how model.PortAllocation) nftables.Term {
	var flags uint32
	switch how {
	case model.PortsRandom:
		flags = unix.NF_NAT_RANGE_PROTO_RANDOM
	case model.PortsFullyRandom:
		flags = unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY
	}
	terms := nftables.Terms{nftables.Needs("masq", "nft_masq")}
	if !ports.IsZero() {
		terms = append(terms, loadPorts(nftables.Reg1, nftables.Reg2, ports))
		flags |= unix.NF_NAT_RANGE_PROTO_SPECIFIED
	}
	var data []byte
	if flags != 0 {
		data = nfnetlink.AppendUint32(data, unix.NFTA_MASQ_FLAGS, flags)
	}
	if !ports.IsZero() {
		data = nfnetlink.AppendUint32(data, unix.NFTA_MASQ_REG_PROTO_MIN, nftables.Reg1)
		data = nfnetlink.AppendUint32(data, unix.NFTA_MASQ_REG_PROTO_MAX, nftables.Reg2)
	}
	return append(terms, nftables.RawExpr("masq", data))
}

// loadPorts loads the ends of a port range into two registers.
func loadPorts(first, last uint32, p model.PortRange) nftables.Term {
	return nftables.Expr(
		&expr.Immediate{Register: first, Data: binary.BigEndian.AppendUint16(nil, p.First)},
		&expr.Immediate{Register: last, Data: binary.BigEndian.AppendUint16(nil, p.Last)})
}

// perInterface are rules that go to a chain for each of the interfaces, or for all if there are none.
func perInterface(names []string, match func(string) nftables.Term, verdict ...nftables.Term) []nftables.Rule {
	if len(names) == 0 {
		return []nftables.Rule{nftables.NewRule(verdict...)}
	}
	var list []nftables.Rule
	for _, name := range names {
		list = append(list, nftables.NewRule(match(name), nftables.Terms(verdict)))
	}
	return list
}
