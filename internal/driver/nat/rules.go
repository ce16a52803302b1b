package nat

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// The registers that rules use. Each is 16 bytes long, enough for an address.
const (
	reg1 = unix.NFT_REG_1
	reg2 = unix.NFT_REG_2
	reg3 = unix.NFT_REG_3
)

// family is what a rule must know of an address family.
type family struct {
	proto               uint8 // unix.NFPROTO_…
	version             uint8 // in the first four bits of the network header
	addrLen             uint32
	source, destination uint32 // offsets in the network header (RFC 791, RFC 8200)
	keyType             uint32 // of a set, in nft's numbering (enum datatypes of its include/datatype.h)
	suffix              string // of the names of sets and chains
	name                string // for people
}

func ipv4() family {
	return family{proto: unix.NFPROTO_IPV4, version: 4, addrLen: 4, source: 12, destination: 16, keyType: 7, suffix: "4", name: "IPv4"}
}

func ipv6() family {
	return family{proto: unix.NFPROTO_IPV6, version: 6, addrLen: 16, source: 8, destination: 24, keyType: 8, suffix: "6", name: "IPv6"}
}

// holds says whether a range is of the family.
func (f family) holds(r netipx.IPRange) bool {
	return r.From().Is4() == (f.proto == unix.NFPROTO_IPV4)
}

// ruleBuilder strings expressions together. The first error is kept for build.
type ruleBuilder struct {
	wire    []byte
	feature string
	err     error
}

// add appends expressions.
func (r *ruleBuilder) add(list ...expr.Any) *ruleBuilder {
	for _, e := range list {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil && r.err == nil {
			r.err = fmt.Errorf("encoding %T: %w", e, err)
		}
		r.wire = nfnetlink.AppendAttr(r.wire, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b)
	}
	return r
}

// build ends the rule.
func (r *ruleBuilder) build() (rule, error) {
	if r.err != nil {
		return rule{}, r.err
	}
	form, err := canonical(r.wire)
	return rule{form: form, wire: r.wire, feature: r.feature}, err
}

// needs names the expression of the rule, and its module, that a kernel may lack.
func (r *ruleBuilder) needs(expression, module string) *ruleBuilder {
	r.feature = "expression " + expression + " (module " + module + ")"
	return r
}

// outInterface lets through what leaves by an interface; a trailing "*" matches any rest.
func (r *ruleBuilder) outInterface(name string) *ruleBuilder {
	return r.interfaceIs(expr.MetaKeyOIFNAME, name)
}

// inInterface lets through what has come by an interface; a trailing "*" matches any rest.
func (r *ruleBuilder) inInterface(name string) *ruleBuilder {
	return r.interfaceIs(expr.MetaKeyIIFNAME, name)
}

func (r *ruleBuilder) interfaceIs(key expr.MetaKey, name string) *ruleBuilder {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		if prefix == "" {
			return r
		}
		data = []byte(prefix)
	}
	return r.add(
		&expr.Meta{Key: key, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: data})
}

// addressIn lets through packets of a family whose address at an offset is in a set.
func (r *ruleBuilder) addressIn(f family, offset uint32, set string) *ruleBuilder {
	return r.inFamily(f).add(
		&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.addrLen, DestRegister: reg1},
		&expr.Lookup{SourceRegister: reg1, SetName: set})
}

// protocol lets through packets of a transport protocol (IANA number).
func (r *ruleBuilder) protocol(number uint8) *ruleBuilder {
	return r.add(
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{number}})
}

// protocolIsNot lets through packets of every other transport protocol.
func (r *ruleBuilder) protocolIsNot(number uint8) *ruleBuilder {
	return r.add(
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{number}})
}

// goTo ends the rule by going to a chain and not coming back.
func (r *ruleBuilder) goTo(chain string) *ruleBuilder {
	return r.add(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

// leave ends the rule by returning from the chain.
func (r *ruleBuilder) leave() *ruleBuilder {
	return r.add(&expr.Verdict{Kind: expr.VerdictReturn})
}

// translate ends the rule by translating the source to an address, or to that of the outgoing interface
// if there is none, and to a port of a range, if there is one.
func (r *ruleBuilder) translate(f family, to netip.Addr, ports model.PortRange, how model.PortAllocation) *ruleBuilder {
	if !to.IsValid() {
		return r.masquerade(ports, how)
	}
	nat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(f.proto), RegAddrMin: reg1, RegAddrMax: reg1,
		Random: how == model.PortsRandom, FullyRandom: how == model.PortsFullyRandom}
	r.add(&expr.Immediate{Register: reg1, Data: to.AsSlice()})
	if !ports.IsZero() {
		r.ports(reg2, reg3, ports)
		nat.RegProtoMin, nat.RegProtoMax, nat.Specified = reg2, reg3, true
	}
	return r.add(nat).needs("nat", "nft_nat")
}

// masquerade is written by hand: the library leaves the flags out if there are ports.
func (r *ruleBuilder) masquerade(ports model.PortRange, how model.PortAllocation) *ruleBuilder {
	var flags uint32
	switch how {
	case model.PortsRandom:
		flags = unix.NF_NAT_RANGE_PROTO_RANDOM
	case model.PortsFullyRandom:
		flags = unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY
	}
	if !ports.IsZero() {
		r.ports(reg1, reg2, ports)
		flags |= unix.NF_NAT_RANGE_PROTO_SPECIFIED
	}
	var at, data int
	r.wire, at = nfnetlink.OpenNest(r.wire, unix.NFTA_LIST_ELEM)
	r.wire = nfnetlink.AppendText(r.wire, unix.NFTA_EXPR_NAME, "masq")
	r.wire, data = nfnetlink.OpenNest(r.wire, unix.NFTA_EXPR_DATA)
	if flags != 0 {
		r.wire = nfnetlink.AppendUint32(r.wire, unix.NFTA_MASQ_FLAGS, flags)
	}
	if !ports.IsZero() {
		r.wire = nfnetlink.AppendUint32(r.wire, unix.NFTA_MASQ_REG_PROTO_MIN, reg1)
		r.wire = nfnetlink.AppendUint32(r.wire, unix.NFTA_MASQ_REG_PROTO_MAX, reg2)
	}
	nfnetlink.CloseNest(r.wire, data)
	nfnetlink.CloseNest(r.wire, at)
	return r.needs("masq", "nft_masq")
}

// ports loads the ends of a port range into two registers.
func (r *ruleBuilder) ports(first, last uint32, p model.PortRange) {
	r.add(
		&expr.Immediate{Register: first, Data: []byte{byte(p.First >> 8), byte(p.First)}},
		&expr.Immediate{Register: last, Data: []byte{byte(p.Last >> 8), byte(p.Last)}})
}
