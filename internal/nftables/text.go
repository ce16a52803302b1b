package nftables

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// text renders a rule's form (canonical) as the nft command does, for people. What this package never
// writes, it renders as "[name attribute=value …]".
func text(form string) string {
	w := &textWriter{regs: map[uint32]operand{}}
	for form != "" {
		quoted, err := strconv.QuotedPrefix(form)
		if err != nil {
			return form
		}
		inner, rest, ok := strings.Cut(strings.TrimPrefix(form[len(quoted):], "{"), "}")
		name, err := strconv.Unquote(quoted)
		if err != nil || !ok {
			return form
		}
		form = rest
		w.expression(name, inner)
	}
	w.flush()
	return strings.Join(w.words, " ")
}

// operand is what a register holds.
type operand struct {
	name string // such as "ip saddr"; "" for a value
	kind string // how values that it is compared with are written; see value
	data []byte // a value
	mask uint32 // of bits that are compared; 0 for all
}

// textWriter puts the words of a rule together.
type textWriter struct {
	words []string
	regs  map[uint32]operand
	key   []string // what was loaded since a key was used last
	// family and protocol are what the rule was compared with last, unix.NFPROTO_… and unix.IPPROTO_….
	family, protocol byte
	// ofFamily and ofProtocol are these comparisons, which nft leaves out before what implies them.
	ofFamily, ofProtocol string
}

func (w *textWriter) flush() {
	for _, s := range []*string{&w.ofFamily, &w.ofProtocol} {
		if *s != "" {
			w.words = append(w.words, *s)
			*s = ""
		}
	}
}

func (w *textWriter) say(words ...string) {
	w.flush()
	for _, s := range words {
		if s != "" {
			w.words = append(w.words, s)
		}
	}
}

// fields are the attributes of one expression by path. An absent one is zero, as canonical has it.
type fields map[string][]byte

func parseFields(s string) fields {
	f := fields{}
	for part := range strings.FieldsSeq(s) {
		path, value, _ := strings.Cut(part, "=")
		if b, err := hex.DecodeString(value); err == nil {
			f[path] = b
		}
	}
	return f
}

func (f fields) number(path string) uint32 {
	if b := f[path]; len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (f fields) string(path string) string { return strings.TrimRight(string(f[path]), "\x00") }

// value is the data of an attribute, which canonical takes for nested in some expressions only.
func (f fields) value(path string) []byte {
	if b, ok := f[path+".1"]; ok {
		return b
	}
	if b := f[path]; len(b) > 4 {
		return b[4:]
	}
	return nil
}

func (w *textWriter) expression(name, inner string) {
	f := parseFields(inner)
	switch name {
	case "meta", "payload", "ct", "fib":
		w.load(name, f, inner)
		return
	}
	w.act(name, f, inner)
	w.key = nil
}

// load renders an expression that reads something of a packet into a register.
func (w *textWriter) load(name string, f fields, inner string) {
	to := f.number("1")
	switch name {
	case "meta":
		if to == 0 { // it writes a key instead of reading one
			w.setMeta(f, inner)
			return
		}
		w.regs[to] = meta(f)
	case "payload":
		w.regs[to] = w.payload(f)
	case "ct":
		w.regs[to] = named(f.number("2"), map[uint32]operand{
			unix.NFT_CT_STATE: {name: "ct state", kind: "state"}, unix.NFT_CT_STATUS: {name: "ct status", kind: "status"},
			unix.NFT_CT_DIRECTION: {name: "ct direction", kind: "direction"}, unix.NFT_CT_PROTOCOL: {name: "ct protocol", kind: "protocol"}}, "ct key")
	case "fib":
		w.regs[to] = fib(f)
	}
	w.key = append(w.key, w.regs[to].name)
}

// act renders any other expression.
func (w *textWriter) act(name string, f fields, inner string) {
	switch name {
	case "socket":
		w.regs[f.number("2")] = named(f.number("1"), map[uint32]operand{0 /* NFT_SOCKET_TRANSPARENT */ : {name: "socket transparent", kind: "number"}}, "socket key")
	case "bitwise":
		o := w.regs[f.number("1")]
		if m := f.value("4"); len(m) == 4 {
			o.mask = binary.NativeEndian.Uint32(m)
			if o.kind == "bits" {
				o.mask = binary.BigEndian.Uint32(m)
			}
		}
		w.regs[f.number("2")] = o
	case "immediate":
		if _, ok := f["2.1"]; ok {
			w.regs[f.number("1")] = operand{data: f["2.1"]}
			return
		}
		w.say(verdict(f))
	case "cmp":
		w.compare(f)
	case "lookup":
		w.lookup(f)
	case "counter":
		w.say("counter")
	case "masq":
		w.say("masquerade", w.target(0, f.number("2"), f.number("3")), natFlags(f.number("1")))
	case "nat":
		kind := "snat"
		if f.number("1") != unix.NFT_NAT_SNAT {
			kind = "dnat"
		}
		w.say(kind, familyName(f.number("2")), w.target(f.number("3"), f.number("5"), f.number("6")), natFlags(f.number("7")))
	default:
		w.say(strings.TrimSpace("["+name+" "+inner) + "]")
	}
}

func named(key uint32, names map[uint32]operand, otherwise string) operand {
	if o, ok := names[key]; ok {
		return o
	}
	return operand{name: fmt.Sprintf("%s %d", otherwise, key)}
}

// lookup renders a lookup of what was loaded in a set, or in a map.
func (w *textWriter) lookup(f fields) {
	set, key := "@"+f.string("1"), strings.Join(w.key, " . ")
	if len(w.key) < 2 {
		key = w.regs[f.number("2")].name
	}
	_, isMap := f["3"]
	switch to := f.number("3"); {
	case !isMap && f.number("5") != 0:
		w.say(key, "!=", set)
	case !isMap:
		w.say(key, set)
	case to == unix.NFT_REG_VERDICT:
		w.say(key, "vmap", set)
	default:
		w.flush()
		w.regs[to] = operand{name: key + " map " + set}
	}
}

func meta(f fields) operand {
	return named(f.number("2"), map[uint32]operand{
		unix.NFT_META_NFPROTO: {name: "meta nfproto", kind: "family"},
		unix.NFT_META_L4PROTO: {name: "meta l4proto", kind: "protocol"},
		unix.NFT_META_IIFNAME: {name: "iifname", kind: "interface"},
		unix.NFT_META_OIFNAME: {name: "oifname", kind: "interface"},
		unix.NFT_META_MARK:    {name: "meta mark"},
		unix.NFT_META_PKTTYPE: {name: "meta pkttype"},
	}, "meta key")
}

// setMeta renders what writes a key of a packet.
func (w *textWriter) setMeta(f fields, inner string) {
	from := w.regs[f.number("3")]
	if f.number("2") != unix.NFT_META_MARK || from.name == "" {
		w.say("[meta " + inner + "]")
		return
	}
	w.say("meta mark set " + from.name)
}

func (w *textWriter) payload(f fields) operand {
	base, offset, length := f.number("2"), f.number("3"), f.number("4")
	switch base {
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
		fields := map[[3]uint32]operand{
			{unix.NFPROTO_IPV4, IPv4().Source, 4}:       {name: "ip saddr", kind: "address"},
			{unix.NFPROTO_IPV4, IPv4().Destination, 4}:  {name: "ip daddr", kind: "address"},
			{unix.NFPROTO_IPV6, IPv6().Source, 16}:      {name: "ip6 saddr", kind: "address"},
			{unix.NFPROTO_IPV6, IPv6().Destination, 16}: {name: "ip6 daddr", kind: "address"},
			{unix.NFPROTO_IPV6, 7, 1}:                   {name: "ip6 hoplimit", kind: "number"},
		}
		if o, ok := fields[[3]uint32{uint32(w.family), offset, length}]; ok {
			w.ofFamily = ""
			return o
		}
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		fields := map[[3]uint32]operand{
			{unix.IPPROTO_ICMPV6, 0, 1}: {name: "icmpv6 type", kind: "number"},
			{unix.IPPROTO_TCP, 0, 2}:    {name: "tcp sport", kind: "number"},
			{unix.IPPROTO_TCP, 2, 2}:    {name: "tcp dport", kind: "number"},
			{unix.IPPROTO_UDP, 0, 2}:    {name: "udp sport", kind: "number"},
			{unix.IPPROTO_UDP, 2, 2}:    {name: "udp dport", kind: "number"},
			{0, 0, 2}:                   {name: "th sport", kind: "number"},
			{0, 2, 2}:                   {name: "th dport", kind: "number"},
		}
		if o, ok := fields[[3]uint32{uint32(w.protocol), offset, length}]; ok {
			w.ofProtocol = ""
			if w.protocol == unix.IPPROTO_ICMPV6 {
				w.ofFamily = ""
			}
			return o
		}
	}
	headers := []string{"ll", "nh", "th", "ih"}
	return operand{name: fmt.Sprintf("@%s,%d,%d", headers[min(int(base), len(headers)-1)], offset*8, length*8), kind: "bits"}
}

func fib(f fields) operand {
	var words []string
	for i, name := range []string{"saddr", "daddr", "mark", "iif", "oif"} {
		if f.number("3")&(1<<i) != 0 {
			words = append(words, name)
		}
	}
	results := []operand{{name: "result"}, {name: "oif"}, {name: "oifname", kind: "interface"}, {name: "type", kind: "type"}}
	o := results[min(int(f.number("2")), len(results)-1)]
	return operand{name: "fib " + strings.Join(words, " . ") + " " + o.name, kind: o.kind}
}

func verdict(f fields) string {
	return Verdict{code: int32(f.number("2.2.1")), chain: f.string("2.2.2")}.String()
}

func (w *textWriter) compare(f fields) {
	o, data, op := w.regs[f.number("1")], f["3.1"], f.number("2")
	written := value(o.kind, data)
	switch {
	case o.kind == "family" && op == unix.NFT_CMP_EQ && len(data) == 1:
		w.family, w.ofFamily = data[0], o.name+" "+written
		return
	case o.kind == "protocol" && op == unix.NFT_CMP_EQ && len(data) == 1:
		w.protocol, w.ofProtocol = data[0], o.name+" "+written
		return
	case op == unix.NFT_CMP_LTE && len(w.words) > 2 && w.words[len(w.words)-2] == ">=" && w.words[len(w.words)-3] == o.name:
		w.words = append(w.words[:len(w.words)-2], w.words[len(w.words)-1]+"-"+written)
		return
	}
	if o.mask != 0 {
		if op == unix.NFT_CMP_NEQ && strings.Trim(string(data), "\x00") == "" {
			w.say(o.name, bitNames(o.kind, o.mask))
			return
		}
		o.name += fmt.Sprintf(" & %#x", o.mask)
	}
	operators := []string{"", "!=", "<", "<=", ">", ">="}
	if o.mask != 0 {
		operators[unix.NFT_CMP_EQ] = "=="
	}
	w.say(o.name, operators[min(int(op), len(operators)-1)], written)
}

// value renders what something of a kind is compared with.
func value(kind string, data []byte) string {
	names := map[string]map[byte]string{
		"family":    {unix.NFPROTO_IPV4: "ipv4", unix.NFPROTO_IPV6: "ipv6"},
		"protocol":  {unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp", unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "ipv6-icmp"},
		"direction": {0: "original", 1: "reply"},
	}
	switch {
	case len(data) == 1 && names[kind][data[0]] != "":
		return names[kind][data[0]]
	case kind == "number" && len(data) <= 4:
		return strconv.FormatUint(uint64(binary.BigEndian.Uint32(append(make([]byte, 4-len(data)), data...))), 10)
	case kind == "bits" && len(data) <= 4:
		return fmt.Sprintf("%#x", binary.BigEndian.Uint32(append(make([]byte, 4-len(data)), data...)))
	case kind == "interface" && len(data) == unix.IFNAMSIZ:
		return strconv.Quote(strings.TrimRight(string(data), "\x00"))
	case kind == "interface":
		return strconv.Quote(string(data) + "*")
	case kind == "type" && len(data) == 4:
		types := []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast"}
		if n := binary.NativeEndian.Uint32(data); int(n) < len(types) {
			return types[n]
		}
	case kind == "address":
		if a, ok := netip.AddrFromSlice(data); ok {
			return a.String()
		}
	}
	return "0x" + hex.EncodeToString(data)
}

// bitNames renders the bits of a mask, of which one at least is to be set.
func bitNames(kind string, mask uint32) string {
	known := map[string][]string{
		"state":  {"invalid", "established", "related", "new", "", "", "untracked"},
		"status": {"expected", "seen-reply", "assured", "confirmed", "snat", "dnat"},
	}[kind]
	var names []string
	for m := mask; m != 0; m &= m - 1 {
		bit := bits.TrailingZeros32(m)
		if bit >= len(known) || known[bit] == "" {
			return fmt.Sprintf("& %#x != 0", mask)
		}
		names = append(names, known[bit])
	}
	return strings.Join(names, ",")
}

// target renders where a nat expression translates to, by the registers that hold it; 0 for none.
func (w *textWriter) target(addr, first, last uint32) string {
	to := w.regs[addr].name // of a map
	if a, ok := netip.AddrFromSlice(w.regs[addr].data); ok {
		to = a.String()
	}
	from, until := w.regs[first].data, w.regs[last].data
	if len(from) == 2 && len(until) == 2 {
		if strings.Contains(to, ":") {
			to = "[" + to + "]"
		}
		to += fmt.Sprintf(":%d", binary.BigEndian.Uint16(from))
		if last != first {
			to += fmt.Sprintf("-%d", binary.BigEndian.Uint16(until))
		}
	}
	if to == "" {
		return ""
	}
	return "to " + to
}

func familyName(proto uint32) string {
	if proto == unix.NFPROTO_IPV6 {
		return "ip6"
	}
	return "ip"
}

// tableFamily is the family of a table, as the nft command names it.
func tableFamily(family uint8) string {
	if family == FamilyNetdev {
		return "netdev"
	}
	return "inet"
}

func natFlags(flags uint32) string {
	var names []string
	for _, f := range []struct {
		flag uint32
		name string
	}{{unix.NF_NAT_RANGE_PROTO_RANDOM, "random"}, {unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY, "fully-random"}, {unix.NF_NAT_RANGE_PERSISTENT, "persistent"}} {
		if flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ",")
}
