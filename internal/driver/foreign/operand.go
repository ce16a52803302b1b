package foreign

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
)

// field is what a register holds.
type field int

const (
	fieldOther       field = iota // something of which nothing is known
	fieldValue                    // a constant
	fieldSource                   // the source address, or its first bytes
	fieldDestination              // the destination address, or its first bytes
	fieldProtocol                 // the transport protocol, one byte
	fieldFamily                   // NFPROTO_…, one byte
	fieldEtherType                // two bytes in network byte order
	fieldOut                      // the name of the outgoing interface, 16 bytes
	fieldOutIndex                 // its number, in host byte order
	fieldMark                     // the packet's mark, in host byte order
	fieldFixed                    // something that all packets that are judged agree on
)

// operand is what was loaded into a register.
type operand struct {
	field field
	text  string // as people write it
	size  uint32 // in bytes; for addresses perhaps less than all
	value []byte // of fieldValue and fieldFixed
	// and and xor are what a bitwise expression did to it; nil where none did.
	and, xor []byte
}

// What is fixed for a packet that is judged: the first of a connection, in its original direction, without
// a mark on the connection, and with a destination and a source elsewhere.
const (
	ctStateNew    = 1 << 3 // NF_CT_STATE_BIT(IP_CT_NEW)
	ctStatusKnown = 0x3f   // IPS_EXPECTED to IPS_DST_NAT, none of which is set
	fibTypeResult = 3      // NFT_FIB_RESULT_ADDRTYPE
	fibSource     = 1      // NFTA_FIB_F_SADDR
	fibDest       = 2      // NFTA_FIB_F_DADDR
)

func hostOrder(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// load takes in an expression that fills a register.
func (d *decoder) load(name string, attrs map[uint16][]byte) error {
	var o operand
	to := uint16(0)
	switch name {
	case "payload":
		if attrs[unix.NFTA_PAYLOAD_SREG] != nil {
			d.add("payload set") // it changes the packet, not who takes it
			return nil
		}
		o, to = d.payload(attrs), unix.NFTA_PAYLOAD_DREG
	case "meta":
		if source := attrs[unix.NFTA_META_SREG]; source != nil {
			d.setMeta(number(attrs[unix.NFTA_META_KEY]), d.registers[register(number(source))])
			return nil
		}
		o, to = meta(number(attrs[unix.NFTA_META_KEY])), unix.NFTA_META_DREG
	case "ct":
		if attrs[unix.NFTA_CT_SREG] != nil {
			return nil // a mark on the connection: no match of this packet sees it that is not unknown
		}
		o, to = conntrack(number(attrs[unix.NFTA_CT_KEY])), unix.NFTA_CT_DREG
	case "fib":
		o, to = fib(attrs), unix.NFTA_FIB_DREG
	case "bitwise":
		var err error
		if o, err = d.bitwise(attrs); err != nil {
			return err
		}
		to = unix.NFTA_BITWISE_DREG
	}
	d.registers[register(number(attrs[to]))] = o
	return nil
}

// payload is what lies at a place in the packet's headers (RFC 791, RFC 8200, and the ports of RFC 9293).
func (d *decoder) payload(attrs map[uint16][]byte) operand {
	base, offset, size := number(attrs[unix.NFTA_PAYLOAD_BASE]), number(attrs[unix.NFTA_PAYLOAD_OFFSET]), number(attrs[unix.NFTA_PAYLOAD_LEN])
	if base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && size == 2 && (offset == 0 || offset == 2) {
		return operand{text: map[uint32]string{0: "sport", 2: "dport"}[offset]}
	}
	header, protocol, source, length := "ip", uint32(9), uint32(12), uint32(4)
	if d.family == unix.NFPROTO_IPV6 {
		header, protocol, source, length = "ip6", 6, 8, 16
	}
	if base == unix.NFT_PAYLOAD_NETWORK_HEADER && d.family != unix.NFPROTO_INET {
		switch {
		case offset == source && size > 0 && size <= length:
			return operand{field: fieldSource, text: header + " saddr", size: size}
		case offset == source+length && size > 0 && size <= length:
			return operand{field: fieldDestination, text: header + " daddr", size: size}
		case offset == protocol && size == 1:
			return operand{field: fieldProtocol, text: "protocol", size: 1}
		}
	}
	return operand{text: fmt.Sprintf("header %d, %d bytes at %d", base, size, offset)}
}

func meta(key uint32) operand {
	switch key {
	case unix.NFT_META_NFPROTO:
		return operand{field: fieldFamily, text: "nfproto", size: 1}
	case unix.NFT_META_PROTOCOL:
		return operand{field: fieldEtherType, text: "protocol", size: 2}
	case unix.NFT_META_L4PROTO:
		return operand{field: fieldProtocol, text: "l4proto", size: 1}
	case unix.NFT_META_OIFNAME:
		return operand{field: fieldOut, text: "oifname", size: unix.IFNAMSIZ}
	case unix.NFT_META_OIF:
		return operand{field: fieldOutIndex, text: "oif", size: 4}
	case unix.NFT_META_MARK:
		return operand{field: fieldMark, text: "mark", size: 4}
	case unix.NFT_META_IIFNAME:
		return operand{text: "iifname"}
	case unix.NFT_META_IIF:
		return operand{text: "iif"}
	case unix.NFT_META_SKUID:
		return operand{text: "skuid"}
	default:
		return operand{text: fmt.Sprintf("meta %d", key)}
	}
}

func conntrack(key uint32) operand {
	switch key {
	case unix.NFT_CT_STATE:
		return operand{field: fieldFixed, text: "ct state", size: 4, value: hostOrder(ctStateNew)}
	case unix.NFT_CT_MARK:
		return operand{field: fieldFixed, text: "ct mark", size: 4, value: hostOrder(0)}
	case unix.NFT_CT_DIRECTION:
		return operand{field: fieldFixed, text: "ct direction", size: 1, value: []byte{0}}
	case unix.NFT_CT_STATUS:
		return operand{text: "ct status"} // until a mask leaves what is known of it
	default:
		return operand{text: fmt.Sprintf("ct %d", key)}
	}
}

// fib is the type of an address in the routing tables. Those of packets that are judged are unicast, and not
// the node's.
func fib(attrs map[uint16][]byte) operand {
	flags := number(attrs[unix.NFTA_FIB_FLAGS])
	if number(attrs[unix.NFTA_FIB_RESULT]) != fibTypeResult || flags != fibSource && flags != fibDest {
		return operand{text: "fib"}
	}
	text := "fib daddr type"
	if flags == fibSource {
		text = "fib saddr type"
	}
	return operand{field: fieldFixed, text: text, size: 4, value: hostOrder(unix.RTN_UNICAST)}
}

// bitwise masks what a register holds, and turns bits round.
func (d *decoder) bitwise(attrs map[uint16][]byte) (operand, error) {
	o := d.registers[register(number(attrs[unix.NFTA_BITWISE_SREG]))]
	mask, err := attributesOf(attrs[unix.NFTA_BITWISE_MASK])
	if err != nil {
		return operand{}, err
	}
	turn, err := attributesOf(attrs[unix.NFTA_BITWISE_XOR])
	if err != nil {
		return operand{}, err
	}
	and, xor := mask[unix.NFTA_DATA_VALUE], turn[unix.NFTA_DATA_VALUE]
	const operation = 6 // NFTA_BITWISE_OP: 0 for these two
	if number(attrs[operation]) != 0 || len(and) == 0 || len(and) != len(xor) || o.and != nil {
		return operand{text: o.text + " shifted"}, nil
	}
	if o.text == "ct status" && len(and) == 4 && binary.NativeEndian.Uint32(and)&^ctStatusKnown == 0 {
		o = operand{field: fieldFixed, text: o.text, size: 4, value: hostOrder(0)}
	}
	o.and, o.xor = and, xor
	return o, nil
}

// setMeta takes in what is written into the packet's metadata: the mark counts.
func (d *decoder) setMeta(key uint32, o operand) {
	if key != unix.NFT_META_MARK {
		return
	}
	switch {
	case o.field == fieldValue && len(o.value) == 4:
		d.target("mark set", diagnose.Action{Kind: diagnose.ActionMark, Clear: ^uint32(0), Set: binary.NativeEndian.Uint32(o.value)})
	case o.field == fieldMark && len(o.and) == 4:
		d.target("mark set", diagnose.Action{Kind: diagnose.ActionMark, Clear: ^binary.NativeEndian.Uint32(o.and), Set: binary.NativeEndian.Uint32(o.xor)})
	default:
		// To any value: what asks for the mark from here on cannot be known.
		d.target("mark set", diagnose.Action{Kind: diagnose.ActionUnknown})
	}
}
