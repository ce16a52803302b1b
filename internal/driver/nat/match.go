package nat

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nftables"
)

// What the leak guard asks of a packet. The numbers are those of the kernel's headers, which
// golang.org/x/sys/unix has not.
const (
	ctStatusSNAT       = 1 << 4 // IPS_SRC_NAT of linux/netfilter/nf_conntrack_common.h
	ctStateInvalid     = 1 << 0 // NF_CT_STATE_INVALID_BIT of the same
	ctStateEstablished = 1 << 1 // NF_CT_STATE_BIT(IP_CT_ESTABLISHED) of the same
	ctStateRelated     = 1 << 2 // NF_CT_STATE_BIT(IP_CT_RELATED)
	ctStateNew         = 1 << 3 // NF_CT_STATE_BIT(IP_CT_NEW)
	ctDirectionReply   = 1      // IP_CT_DIR_REPLY of linux/netfilter/nf_conntrack_tuple_common.h

	hopLimitOffset = 7   // in the IPv6 header (RFC 8200)
	hopLimitOnLink = 255 // of neighbour discovery (RFC 4861): whoever forwards a packet lowers it

	icmpv6RouterSolicitation = 133 // the first of five types of neighbour discovery (RFC 4861)
	icmpv6Redirect           = 137 // the last
)

// countAndDrop ends a rule by counting and dropping the packet.
func countAndDrop() nftables.Term { return nftables.Terms{nftables.Count(), nftables.Drop()} }

// translated matches both directions of connections whose source somebody has translated.
func translated() nftables.Term { return nftables.Connection(expr.CtKeySTATUS, ctStatusSNAT) }

// established matches what belongs to a connection that was answered.
func established() nftables.Term { return nftables.Connection(expr.CtKeySTATE, ctStateEstablished) }

// related matches what is about a connection, such as an ICMP error.
func related() nftables.Term { return nftables.Connection(expr.CtKeySTATE, ctStateRelated) }

// tracked matches what belongs to a connection, answered or not.
func tracked() nftables.Term {
	return nftables.Connection(expr.CtKeySTATE, ctStateNew|ctStateEstablished|ctStateRelated)
}

// invalid matches what belongs to no connection and begins none.
func invalid() nftables.Term { return nftables.Connection(expr.CtKeySTATE, ctStateInvalid) }

// connectionOf matches what belongs to a connection of a transport protocol (IANA number), or is about one.
func connectionOf(number uint8) nftables.Term {
	return nftables.Terms{nftables.Needs("ct", "nft_ct"), is(&expr.Ct{Key: expr.CtKeyPROTOCOL, Register: nftables.Reg1}, []byte{number})}
}

// reply matches what goes from the one who was called to the caller.
func reply() nftables.Term {
	return nftables.Terms{nftables.Needs("ct", "nft_ct"), is(&expr.Ct{Key: expr.CtKeyDIRECTION, Register: nftables.Reg1}, []byte{ctDirectionReply})}
}

// wordsAt matches packets that hold a prefix at an offset of the network header, read four bytes at a time:
// the kernel evaluates aligned loads of four bytes, masks and comparisons of them without a call (nft_do_chain of
// net/netfilter/nf_tables_core.c). It does not ask whether a packet is of the prefix's family.
func wordsAt(offset uint32, p netip.Prefix) nftables.Term {
	var terms nftables.Terms
	addr := p.Masked().Addr().AsSlice()
	for left := p.Bits(); left > 0; left -= 32 {
		terms = append(terms, word(offset, ^uint32(0)<<max(32-left, 0), addr[:4]))
		offset, addr = offset+4, addr[4:]
	}
	return terms
}

// version matches packets of a family, by their first byte (RFC 791, RFC 8200), read as wordsAt does.
func version(f family) nftables.Term { return word(0, 0xf0000000, []byte{f.Version << 4, 0, 0, 0}) }

// word matches packets that have some bits at an offset of the network header.
func word(offset, mask uint32, data []byte) nftables.Term {
	load := networkHeader(offset, 4)
	if mask == ^uint32(0) {
		return is(load, data)
	}
	return nftables.Terms{nftables.Expr(load), is(&expr.Bitwise{SourceRegister: nftables.Reg1, DestRegister: nftables.Reg1, Len: 4,
		Mask: binary.BigEndian.AppendUint32(nil, mask), Xor: make([]byte, 4)}, data)}
}

// destinationIsNot matches packets of a family to other addresses than one.
func destinationIsNot(f family, a netip.Addr) nftables.Term {
	return nftables.Terms{nftables.InFamily(f.Family), nftables.Expr(networkHeader(f.Destination, f.AddrLen),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: nftables.Reg1, Data: a.AsSlice()})}
}

// sourceIsLocal matches packets from an address of this node.
func sourceIsLocal() nftables.Term {
	return nftables.Terms{nftables.Needs("fib", "nft_fib_inet"),
		is(&expr.Fib{Register: nftables.Reg1, ResultADDRTYPE: true, FlagSADDR: true}, nftables.Native(unix.RTN_LOCAL))}
}

// destinationIsElsewhere matches packets to addresses that the interface by which they came does not have,
// such as that of a service on the loopback interface.
func destinationIsElsewhere() nftables.Term {
	return nftables.Terms{nftables.Needs("fib", "nft_fib_inet"), nftables.Expr(
		&expr.Fib{Register: nftables.Reg1, ResultADDRTYPE: true, FlagDADDR: true, FlagIIF: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: nftables.Reg1, Data: nftables.Native(unix.RTN_LOCAL)})}
}

// neighbourDiscovery matches IPv6 neighbour discovery that nobody has forwarded.
func neighbourDiscovery() nftables.Term {
	return nftables.Terms{nftables.InFamily(nftables.IPv6()), nftables.ProtocolIs(unix.IPPROTO_ICMPV6),
		is(networkHeader(hopLimitOffset, 1), []byte{hopLimitOnLink}),
		nftables.Expr(
			&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1, DestRegister: nftables.Reg1},
			&expr.Cmp{Op: expr.CmpOpGte, Register: nftables.Reg1, Data: []byte{icmpv6RouterSolicitation}},
			&expr.Cmp{Op: expr.CmpOpLte, Register: nftables.Reg1, Data: []byte{icmpv6Redirect}})}
}

// hasSocket matches packets for which a socket of this node waits. The rule ends where there is none;
// what is read of the socket is 0 or 1, and either will do.
func hasSocket() nftables.Term {
	return nftables.Terms{nftables.Needs("socket", "nft_socket"), nftables.Expr(
		&expr.Socket{Key: expr.SocketKeyTransparent, Register: nftables.Reg1},
		&expr.Cmp{Op: expr.CmpOpLte, Register: nftables.Reg1, Data: []byte{1}})}
}

func networkHeader(offset, size uint32) expr.Any {
	return &expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size, DestRegister: nftables.Reg1}
}

// is matches packets of which an expression loads a value.
func is(load expr.Any, value []byte) nftables.Term {
	return nftables.Expr(load, &expr.Cmp{Op: expr.CmpOpEq, Register: nftables.Reg1, Data: value})
}
