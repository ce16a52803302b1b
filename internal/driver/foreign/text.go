package foreign

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
)

// prefixText is a prefix as people write it: a single address without its length.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func protocolText(p uint8) string {
	switch p {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_ICMPV6:
		return "icmpv6"
	case unix.IPPROTO_SCTP:
		return "sctp"
	}
	return fmt.Sprint(p)
}

// text is the name of a set, or what is in one that has none.
func (s *set) text(name string, m diagnose.Match) string {
	const shown = 3
	if !strings.HasPrefix(name, "__set") && !strings.HasPrefix(name, "__map") {
		return "@" + name
	}
	var parts []string
	for _, r := range m.Ranges {
		if p, ok := r.Prefix(); ok {
			parts = append(parts, prefixText(p))
		} else {
			parts = append(parts, r.String())
		}
	}
	parts = append(parts, m.Names...)
	for _, p := range m.Protocols {
		parts = append(parts, protocolText(p))
	}
	if len(parts) == 0 || len(parts) > shown {
		parts = append(parts[:min(len(parts), shown)], "...")
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// valueText is a comparison with a value that needs no understanding, as people write it where that is easy.
func valueText(o operand, op uint32, value []byte) string {
	s := map[uint32]string{unix.NFT_CMP_NEQ: "!= ", unix.NFT_CMP_LT: "< ", unix.NFT_CMP_LTE: "<= ", unix.NFT_CMP_GT: "> ", unix.NFT_CMP_GTE: ">= "}[op]
	switch {
	case strings.HasPrefix(o.text, "iifname"):
		name, _, _ := strings.Cut(string(value), "\x00")
		return s + name
	case len(value) == 2:
		return s + fmt.Sprint(binary.BigEndian.Uint16(value))
	case len(value) != 4:
		return s + fmt.Sprintf("%x", value)
	}
	v := binary.NativeEndian.Uint32(value)
	switch {
	case strings.HasPrefix(o.text, "ct sta") && len(o.and) == 4 && v == 0:
		return sign(op == unix.NFT_CMP_EQ) + bitsText(o.text, binary.NativeEndian.Uint32(o.and))
	case strings.HasPrefix(o.text, "fib ") && v == unix.RTN_LOCAL:
		return s + "local"
	}
	return s + fmt.Sprintf("%#x", v)
}

// bitsText names the bits of a state or a status (linux/netfilter/nf_conntrack_common.h).
func bitsText(of string, bits uint32) string {
	names := map[uint32]string{1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"}
	if of == "ct status" {
		names = map[uint32]string{16: "snat", 32: "dnat"}
	}
	var out []string
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if bits&bit == 0 {
			continue
		}
		if names[bit] == "" {
			return fmt.Sprintf("%#x", bits)
		}
		out = append(out, names[bit])
	}
	return strings.Join(out, ",")
}
