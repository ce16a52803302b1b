package nftables

import (
	"encoding/binary"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The registers of 16 bytes that rules use.
const (
	Reg1 = unix.NFT_REG_1
	Reg2 = unix.NFT_REG_2
	Reg3 = unix.NFT_REG_3
)

// Family is what a rule must know of an address family.
type Family struct {
	Proto               uint8  // unix.NFPROTO_…
	Version             uint8  // in the first four bits of the network header
	AddrLen             uint32 // bytes
	Source, Destination uint32 // offsets in the network header (RFC 791, RFC 8200)
	Addr                Type
}

// IPv4 is the family of IPv4.
func IPv4() Family {
	return Family{Proto: unix.NFPROTO_IPV4, Version: 4, AddrLen: 4, Source: 12, Destination: 16, Addr: IPv4Addr}
}

// IPv6 is the family of IPv6.
func IPv6() Family {
	return Family{Proto: unix.NFPROTO_IPV6, Version: 6, AddrLen: 16, Source: 8, Destination: 24, Addr: IPv6Addr}
}

// Field is what a packet has for a field of a key.
type Field struct {
	load func(register uint32) expr.Any
	size int // bytes
}

// Source is a packet's source address. Ask for the family first.
func Source(f Family) Field { return header(expr.PayloadBaseNetworkHeader, f.Source, f.AddrLen) }

// Destination is a packet's destination address. Ask for the family first.
func Destination(f Family) Field {
	return header(expr.PayloadBaseNetworkHeader, f.Destination, f.AddrLen)
}

// SourcePort is that of a transport protocol that has ports. Ask for the protocol, here or before.
func SourcePort() Field { return header(expr.PayloadBaseTransportHeader, 0, 2) }

// DestinationPort is that of a transport protocol that has ports. Ask for the protocol, here or before.
func DestinationPort() Field { return header(expr.PayloadBaseTransportHeader, 2, 2) }

func header(base expr.PayloadBase, offset, size uint32) Field {
	return Field{size: int(size), load: func(register uint32) expr.Any {
		return &expr.Payload{OperationType: expr.PayloadLoad, Base: base, Offset: offset, Len: size, DestRegister: register}
	}}
}

// Protocol is a packet's transport protocol.
func Protocol() Field { return metadata(expr.MetaKeyL4PROTO, 1) }

// InInterface is the name of the interface by which a packet came.
func InInterface() Field { return metadata(expr.MetaKeyIIFNAME, unix.IFNAMSIZ) }

// OutInterface is the name of the interface by which a packet leaves.
func OutInterface() Field { return metadata(expr.MetaKeyOIFNAME, unix.IFNAMSIZ) }

func metadata(key expr.MetaKey, size int) Field {
	return Field{size: size, load: func(register uint32) expr.Any { return &expr.Meta{Key: key, Register: register} }}
}

// load loads the fields of a key, one after the other, from the first register on.
func load(fields []Field) (list []expr.Any) {
	word := uint32(0)
	for _, f := range fields {
		list = append(list, f.load(register(word)))
		word += uint32(align4(f.size)) / 4
	}
	return list
}

// register is the number of the register at a word, as the kernel reports it (nft_dump_register of
// net/netfilter/nf_tables_api.c): those of 16 bytes, where a word begins one.
func register(word uint32) uint32 {
	if word%4 == 0 {
		return Reg1 + word/4
	}
	return unix.NFT_REG32_00 + word
}

// In matches packets whose fields are a key in a set.
func In(set string, fields ...Field) Term {
	return Expr(append(load(fields), &expr.Lookup{SourceRegister: Reg1, SetName: set})...)
}

// VerdictOf does what a verdict map says of the fields. Where it says nothing, the rule does not match.
func VerdictOf(verdicts string, fields ...Field) Term {
	return Expr(append(load(fields), &expr.Lookup{SourceRegister: Reg1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: verdicts})...)
}

// ValueOf loads into Reg1 what a map has for the fields. Where it has nothing, the rule does not match.
func ValueOf(values string, fields ...Field) Term {
	return Expr(append(load(fields), &expr.Lookup{SourceRegister: Reg1, DestRegister: Reg1, IsDestRegSet: true, SetName: values})...)
}

// InFamily matches packets of a family.
func InFamily(f Family) Term {
	return equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: Reg1}, []byte{f.Proto})
}

// SourceIn matches packets of a family whose source is in a set.
func SourceIn(f Family, set string) Term { return Terms{InFamily(f), In(set, Source(f))} }

// DestinationIn matches packets of a family whose destination is in a set.
func DestinationIn(f Family, set string) Term { return Terms{InFamily(f), In(set, Destination(f))} }

// OutBy matches what leaves by an interface; a trailing "*" matches any rest.
func OutBy(name string) Term { return interfaceIs(expr.MetaKeyOIFNAME, name) }

// InBy matches what has come by an interface; a trailing "*" matches any rest.
func InBy(name string) Term { return interfaceIs(expr.MetaKeyIIFNAME, name) }

func interfaceIs(key expr.MetaKey, name string) Term {
	data := AppendIfName(nil, name)
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		if prefix == "" {
			return Terms{}
		}
		data = []byte(prefix)
	}
	return equal(&expr.Meta{Key: key, Register: Reg1}, data)
}

// ProtocolIs matches packets of a transport protocol (IANA number).
func ProtocolIs(number uint8) Term {
	return equal(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: Reg1}, []byte{number})
}

// ProtocolIsNot matches packets of every other transport protocol.
func ProtocolIsNot(number uint8) Term {
	return Expr(&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: Reg1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: Reg1, Data: []byte{number}})
}

// Connection matches packets that have one of some bits of a property of their connection.
func Connection(key expr.CtKey, bits uint32) Term {
	return Terms{Needs("ct", "nft_ct"), Expr(
		&expr.Ct{Key: key, Register: Reg1},
		&expr.Bitwise{SourceRegister: Reg1, DestRegister: Reg1, Len: 4, Mask: Native(bits), Xor: Native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: Reg1, Data: Native(0)})}
}

// Count counts the packet in the rule.
func Count() Term { return Expr(&expr.Counter{}) }

func equal(load expr.Any, data []byte) Term {
	return Expr(load, &expr.Cmp{Op: expr.CmpOpEq, Register: Reg1, Data: data})
}

// Native is a number as the kernel holds it.
func Native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
