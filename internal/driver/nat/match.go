package nat

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
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

// countAndDrop ends the rule by counting and dropping the packet.
func (r *ruleBuilder) countAndDrop() *ruleBuilder {
	return r.add(&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})
}

// bitsOf lets through packets that have one of some bits of a property of their connection.
func (r *ruleBuilder) bitsOf(key expr.CtKey, bits uint32) *ruleBuilder {
	return r.needs("ct", "nft_ct").add(
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: native32(bits), Xor: native32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: native32(0)})
}

// translated lets through both directions of connections whose source somebody has translated.
func (r *ruleBuilder) translated() *ruleBuilder { return r.bitsOf(expr.CtKeySTATUS, ctStatusSNAT) }

// established lets through what belongs to a connection that was answered.
func (r *ruleBuilder) established() *ruleBuilder {
	return r.bitsOf(expr.CtKeySTATE, ctStateEstablished)
}

// related lets through what is about a connection, such as an ICMP error.
func (r *ruleBuilder) related() *ruleBuilder { return r.bitsOf(expr.CtKeySTATE, ctStateRelated) }

// connection lets through what belongs to a connection of a transport protocol (IANA number), or is about one.
func (r *ruleBuilder) connection(number uint8) *ruleBuilder {
	return r.needs("ct", "nft_ct").add(
		&expr.Ct{Key: expr.CtKeyPROTOCOL, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{number}})
}

// tracked lets through what belongs to a connection, answered or not.
func (r *ruleBuilder) tracked() *ruleBuilder {
	return r.bitsOf(expr.CtKeySTATE, ctStateNew|ctStateEstablished|ctStateRelated)
}

// invalid lets through what belongs to no connection and begins none.
func (r *ruleBuilder) invalid() *ruleBuilder { return r.bitsOf(expr.CtKeySTATE, ctStateInvalid) }

// reply lets through what goes from the one who was called to the caller.
func (r *ruleBuilder) reply() *ruleBuilder {
	return r.needs("ct", "nft_ct").add(
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{ctDirectionReply}})
}

// wordsAt lets through packets that hold a prefix at an offset of the network header, read four bytes at a time:
// the kernel evaluates aligned loads of four bytes, masks and comparisons of them without a call (nft_do_chain of
// net/netfilter/nf_tables_core.c). It does not ask whether a packet is of the prefix's family.
func (r *ruleBuilder) wordsAt(offset uint32, p netip.Prefix) *ruleBuilder {
	addr := p.Masked().Addr().AsSlice()
	for left := p.Bits(); left > 0; left -= 32 {
		r.word(offset, ^uint32(0)<<max(32-left, 0), addr[:4])
		offset, addr = offset+4, addr[4:]
	}
	return r
}

// version lets through packets of a family, by their first byte (RFC 791, RFC 8200), read as wordsAt does.
func (r *ruleBuilder) version(f family) *ruleBuilder {
	return r.word(0, 0xf0000000, []byte{f.version << 4, 0, 0, 0})
}

// word lets through packets that have some bits at an offset of the network header.
func (r *ruleBuilder) word(offset, mask uint32, data []byte) *ruleBuilder {
	r.add(&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4, DestRegister: reg1})
	if mask != ^uint32(0) {
		r.add(&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binary.BigEndian.AppendUint32(nil, mask), Xor: make([]byte, 4)})
	}
	return r.add(&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data})
}

// inFamily lets through packets of a family.
func (r *ruleBuilder) inFamily(f family) *ruleBuilder {
	return r.add(
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{f.proto}})
}

// destinationIsNot lets through packets of a family to other addresses than one.
func (r *ruleBuilder) destinationIsNot(f family, a netip.Addr) *ruleBuilder {
	return r.inFamily(f).add(
		&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: f.destination, Len: f.addrLen, DestRegister: reg1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: a.AsSlice()})
}

// sourceIsLocal lets through packets from an address of this node.
func (r *ruleBuilder) sourceIsLocal() *ruleBuilder {
	return r.needs("fib", "nft_fib_inet").add(
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagSADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: native32(unix.RTN_LOCAL)})
}

// destinationIsElsewhere lets through packets to addresses that the interface by which they came does not have,
// such as that of a service on the loopback interface.
func (r *ruleBuilder) destinationIsElsewhere() *ruleBuilder {
	return r.needs("fib", "nft_fib_inet").add(
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: true, FlagIIF: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: native32(unix.RTN_LOCAL)})
}

// neighbourDiscovery lets through IPv6 neighbour discovery that nobody has forwarded.
func (r *ruleBuilder) neighbourDiscovery() *ruleBuilder {
	return r.inFamily(ipv6()).protocol(unix.IPPROTO_ICMPV6).add(
		&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: hopLimitOffset, Len: 1, DestRegister: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{hopLimitOnLink}},
		&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1, DestRegister: reg1},
		&expr.Cmp{Op: expr.CmpOpGte, Register: reg1, Data: []byte{icmpv6RouterSolicitation}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: []byte{icmpv6Redirect}})
}

// hasSocket lets through packets for which a socket of this node waits. The rule ends where there is none;
// what is read of the socket is 0 or 1, and either will do.
func (r *ruleBuilder) hasSocket() *ruleBuilder {
	return r.needs("socket", "nft_socket").add(
		&expr.Socket{Key: expr.SocketKeyTransparent, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpLte, Register: reg1, Data: []byte{1}})
}

// native32 is a number as the kernel holds it.
func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
