package foreign

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
)

// The extensions of xtables are the same in legacy tables and, wrapped, in those of iptables-nft. Their data is
// in host byte order (linux/netfilter/xt_*.h).

// xtMatch decodes a match; false if it is not understood.
func (s *ipsets) xtMatch(name string, revision uint32, info []byte) (text string, matches []diagnose.Match, known bool) {
	native := binary.NativeEndian
	switch {
	case name == "comment":
		return "", nil, true
	case name == "addrtype":
		return addrtype(revision, info)
	case name == "mark" && revision == 1 && len(info) >= 9:
		m := diagnose.Match{Kind: diagnose.MatchMark, Value: native.Uint32(info), Mask: native.Uint32(info[4:]), Not: info[8] != 0}
		return "mark " + sign(m.Not) + markText(m), []diagnose.Match{m}, true
	case name == "state" && len(info) >= 4:
		return ctstate(native.Uint32(info), false)
	case name == "conntrack":
		return xtConntrack(info, revision)
	case (name == "tcp" || name == "udp") && len(info) >= 8:
		return ports(info)
	case name == "set":
		return s.match(revision, info)
	}
	return "match " + name, nil, false
}

func sign(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

// addrtype asks for the types of addresses in the routing tables. What is judged is unicast on both ends, and
// not the node's.
func addrtype(revision uint32, info []byte) (string, []diagnose.Match, bool) {
	const unicast = 1 << unix.RTN_UNICAST
	if need := map[uint32]int{0: 12, 1: 8}[revision]; need == 0 || len(info) < need {
		return "match addrtype", nil, false
	}
	native := binary.NativeEndian
	source, dest := native.Uint16(info), native.Uint16(info[2:])
	var notSource, notDest bool
	if revision == 0 { // xt_addrtype_info
		notSource, notDest = native.Uint32(info[4:]) != 0, native.Uint32(info[8:]) != 0
	} else { // xt_addrtype_info_v1: bits for both, and for asking of one interface alone
		flags := native.Uint32(info[4:])
		if flags&^3 != 0 {
			return "match addrtype", nil, false
		}
		notSource, notDest = flags&1 != 0, flags&2 != 0
	}
	text, met := "", true
	if source != 0 {
		text += fmt.Sprintf("src-type %s%#x", sign(notSource), source)
		met = met && (source&unicast != 0) != notSource
	}
	if dest != 0 {
		text += fmt.Sprintf("dst-type %s%s", sign(notDest), addrtypeText(dest))
		met = met && (dest&unicast != 0) != notDest
	}
	m := diagnose.Match{Kind: diagnose.MatchNothing}
	if met {
		m.Kind = diagnose.MatchEverything
	}
	return text, []diagnose.Match{m}, true
}

func addrtypeText(bits uint16) string {
	switch bits {
	case 1 << unix.RTN_LOCAL:
		return "LOCAL"
	case 1 << unix.RTN_UNICAST:
		return "UNICAST"
	}
	return fmt.Sprintf("%#x", bits)
}

// ctstate asks for the state of a connection; what is judged is new.
func ctstate(bits uint32, not bool) (string, []diagnose.Match, bool) {
	m := diagnose.Match{Kind: diagnose.MatchNothing, Not: not}
	if bits&ctStateNew != 0 {
		m.Kind = diagnose.MatchEverything
	}
	return fmt.Sprintf("ctstate %s%#x", sign(not), bits), []diagnose.Match{m}, true
}

// xtConntrack understands xt_conntrack_mtinfo where it asks for the state alone.
func xtConntrack(info []byte, revision uint32) (string, []diagnose.Match, bool) {
	const (
		flagsAt   = 146 // after eight addresses, two times and five ports
		onlyState = 1   // XT_CONNTRACK_STATE
	)
	native := binary.NativeEndian
	if revision < 1 || revision > 3 || len(info) < flagsAt+8 || native.Uint16(info[flagsAt:]) != onlyState {
		return "match conntrack", nil, false
	}
	inverted, state := native.Uint16(info[flagsAt+2:]), uint32(native.Uint16(info[flagsAt+4:]))
	if revision == 1 { // its masks are of one byte
		state = uint32(info[flagsAt+4])
	}
	return ctstate(state, inverted&onlyState != 0)
}

// ports understands xt_tcp and xt_udp where they ask for nothing; what they ask for otherwise, some packets
// have and some have not.
func ports(info []byte) (string, []diagnose.Match, bool) {
	native := binary.NativeEndian
	text := ""
	for i, name := range []string{"sport", "dport"} {
		first, last := native.Uint16(info[4*i:]), native.Uint16(info[4*i+2:])
		if first == last {
			text += fmt.Sprintf("%s %d", name, first)
		} else if first != 0 || last != 0xffff {
			text += fmt.Sprintf("%s %d-%d", name, first, last)
		}
	}
	return text, nil, false
}

// xtTarget decodes a target.
func xtTarget(name string, revision uint32, info []byte) (string, diagnose.Action) {
	native := binary.NativeEndian
	switch name {
	case "MASQUERADE":
		return name, diagnose.Action{Kind: diagnose.ActionTranslate, Text: "MASQUERADE"}
	case "SNAT", "NETMAP":
		text := name
		if a, ok := snatAddress(revision, info); name == "SNAT" && ok {
			text += " to " + a.String()
		}
		return name, diagnose.Action{Kind: diagnose.ActionTranslate, Text: text}
	case "MARK":
		if revision == 2 && len(info) >= 8 {
			return name, diagnose.Action{Kind: diagnose.ActionMark, Set: native.Uint32(info), Clear: native.Uint32(info[4:])}
		}
	case "ACCEPT", "DROP", "REJECT", "DNAT", "REDIRECT":
		return name, diagnose.Action{Kind: diagnose.ActionEnd}
	case "RETURN":
		return name, diagnose.Action{Kind: diagnose.ActionReturn}
	case "LOG", "NFLOG", "AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "DSCP", "ECN", "HL", "SECMARK", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL":
		return name, diagnose.Action{}
	}
	return name, diagnose.Action{Kind: diagnose.ActionUnknown}
}

// snatAddress is the first address of nf_nat_ipv4_multi_range_compat (revision 0) or nf_nat_range.
func snatAddress(revision uint32, info []byte) (netip.Addr, bool) {
	const mapsIPs = 1 // NF_NAT_RANGE_MAP_IPS
	switch {
	case revision == 0 && len(info) >= 12: // the number of ranges, then flags and the first address
		a, ok := netip.AddrFromSlice(info[8:12])
		return a, ok && binary.NativeEndian.Uint32(info[4:])&mapsIPs != 0
	case revision > 0 && len(info) >= 20:
		a, ok := netip.AddrFromSlice(info[4:20])
		return a, ok && binary.NativeEndian.Uint32(info)&mapsIPs != 0
	}
	return netip.Addr{}, false
}
