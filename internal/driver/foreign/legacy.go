package foreign

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
)

// The options of a socket that read tables (linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h).
const (
	optGetInfo    = 64 // IPT_SO_GET_INFO, IP6T_SO_GET_INFO
	optGetEntries = 65 // IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES

	infoLen       = 84 // struct ipt_getinfo
	entriesHeader = 40 // struct ipt_get_entries up to the entries, where numbers of 64 bits are aligned to 8 bytes
	tableNameLen  = 32

	// maxBlob bounds a table, in bytes: 100,000 rules and more.
	maxBlob = 64 << 20
	// natTable is the table that translates.
	natTable = "nat"
)

// legacyPriority is that of the table's chain in the postrouting hook: NF_IP_PRI_NAT_SRC.
const legacyPriority = 100

// legacyVersion is what differs between iptables and ip6tables: their names, and where the fields of struct
// ipt_entry and ip6t_entry lie.
type legacyVersion struct {
	command          string
	names            string // lists the tables that there are
	domain, level    int
	addrLen          int
	protocol         int // of 16 bits
	flags, inverted  int
	gotoFlag         byte
	target, next     int  // of 16 bits
	matches          int  // where the matches begin
	protocolFlag     byte // the protocol counts only with it; 0: always, if it is not 0
	in, out, outMask int
}

func legacyVersions() []legacyVersion {
	return []legacyVersion{
		{command: "iptables-legacy", names: "ip_tables_names", domain: unix.AF_INET, level: unix.SOL_IP, addrLen: 4,
			in: 16, out: 32, outMask: 64, protocol: 80, flags: 82, inverted: 83, gotoFlag: 2, target: 88, next: 90, matches: 112},
		{command: "ip6tables-legacy", names: "ip6_tables_names", domain: unix.AF_INET6, level: unix.SOL_IPV6, addrLen: 16,
			in: 64, out: 80, outMask: 112, protocol: 128, flags: 131, inverted: 132, gotoFlag: 4, protocolFlag: 1, target: 140, next: 142, matches: 168},
	}
}

// read reads the chains that the postrouting hook leads to, and the addresses of services. Where there is no
// table it makes none: to ask for one by its name would.
func (v *legacyVersion) read(ipsets *ipsets) ([]diagnose.Chain, []netip.Addr, error) {
	names, err := os.ReadFile("/proc/thread-self/net/" + v.names)
	if errors.Is(err, os.ErrNotExist) || err == nil && !slices.Contains(strings.Fields(string(names)), natTable) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("asking for the tables of %s: %w", v.command, err)
	}
	if math.MaxInt == math.MaxInt32 {
		return nil, nil, fmt.Errorf("%s: its tables can be read by a program of 64 bits alone", v.command)
	}
	info, blob, err := v.readTable()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the table %s of %s: %w", natTable, v.command, err)
	}
	chains, services, err := v.parse(info, blob, ipsets)
	if err != nil {
		return chains, services, fmt.Errorf("the table %s of %s: %w", natTable, v.command, err)
	}
	return chains, services, nil
}

// readTable reads the head of the table, and its entries.
func (v *legacyVersion) readTable() (info, entries []byte, err error) {
	// Any socket of the family will do; a raw one, as iptables takes, would need CAP_NET_RAW.
	fd, err := unix.Socket(v.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a socket: %w", err)
	}
	defer unix.Close(fd)
	for range maxTries {
		info = make([]byte, infoLen)
		copy(info, natTable)
		if err = getsockopt(fd, v.level, optGetInfo, info); err != nil {
			return nil, nil, err
		}
		size := binary.NativeEndian.Uint32(info[infoLen-4:])
		if size > maxBlob {
			return nil, nil, errTooMany
		}
		entries = make([]byte, entriesHeader+int(size))
		copy(entries, natTable)
		binary.NativeEndian.PutUint32(entries[tableNameLen:], size)
		if err = getsockopt(fd, v.level, optGetEntries, entries); !errors.Is(err, unix.EAGAIN) { // it was changed meanwhile
			break
		}
	}
	return info, entries[entriesHeader:], err
}

func getsockopt(fd, level, option int, buf []byte) error {
	size := uint32(len(buf))
	//nolint:gosec // the buffer is as long as size says; no library has this call for a buffer that goes both ways
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(unsafe.SliceData(buf))), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return os.NewSyscallError("getsockopt", errno)
	}
	return nil
}

// legacyChain is a chain whose rules are not decoded yet.
type legacyChain struct {
	name    string
	entries [][]byte
	offsets []int // of the entries, in the table
}

// parse decodes the postrouting chain and those that it leads to, and the addresses of services.
func (v *legacyVersion) parse(info, blob []byte, ipsets *ipsets) ([]diagnose.Chain, []netip.Addr, error) {
	byStart, post, err := v.split(info, blob)
	if err != nil || post == nil {
		return nil, nil, err
	}
	services := v.services(byStart, ipsets)
	table := fmt.Sprintf("%s table %s", v.command, natTable)
	out := []diagnose.Chain{{Table: table, Name: post.name, Base: true, Priority: legacyPriority, IPv4: v.addrLen == 4, IPv6: v.addrLen != 4}}
	queue, seen := []*legacyChain{post}, map[*legacyChain]bool{post: true}
	rules := 0
	for i := 0; i < len(queue); i++ {
		c := queue[i]
		for k, entry := range c.entries {
			if rules++; rules > maxRules || len(queue) > maxChains {
				return out, services, errTooMany
			}
			rule, to := v.rule(entry, c.offsets[k], byStart, ipsets)
			rule.Where = fmt.Sprintf("rule %d", k+1)
			rule.Delete = fmt.Sprintf("%s -t %s -D %s %d", v.command, natTable, c.name, k+1)
			out[i].Rules = append(out[i].Rules, rule)
			if to != nil && !seen[to] {
				queue, seen[to] = append(queue, to), true
				out = append(out, diagnose.Chain{Table: table, Name: to.name})
			}
		}
	}
	return out, services, nil
}

// split cuts the table into chains, by where the first of their rules is.
func (v *legacyVersion) split(info, blob []byte) (byStart map[int]*legacyChain, post *legacyChain, err error) {
	if len(info) != infoLen {
		return nil, nil, fmt.Errorf("%w: a head of %d bytes", errMalformed, len(info))
	}
	hooks := map[int]string{}
	for number, name := range []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"} {
		if binary.NativeEndian.Uint32(info[tableNameLen:])&(1<<number) != 0 {
			hooks[int(binary.NativeEndian.Uint32(info[tableNameLen+4+4*number:]))] = name
		}
	}
	byStart = map[int]*legacyChain{}
	var current *legacyChain
	for at := 0; at < len(blob); {
		rest := blob[at:]
		if len(rest) < v.matches {
			return nil, nil, fmt.Errorf("%w: %d bytes where an entry should begin", errMalformed, len(rest))
		}
		target, next := int(binary.NativeEndian.Uint16(rest[v.target:])), int(binary.NativeEndian.Uint16(rest[v.next:]))
		if target < v.matches || next < target+extensionHeader || next > len(rest) {
			return nil, nil, fmt.Errorf("%w: an entry of %d bytes with its target at %d", errMalformed, next, target)
		}
		name, isHook := hooks[at]
		user, isUser := chainHead(rest[target:next])
		switch {
		case isUser:
			current = &legacyChain{name: user}
			byStart[at+next] = current
		case isHook:
			current = &legacyChain{name: name}
			byStart[at] = current
			if name == "POSTROUTING" {
				post = current
			}
		}
		if !isUser && current != nil {
			current.entries, current.offsets = append(current.entries, rest[:next:next]), append(current.offsets, at)
		}
		at += next
	}
	return byStart, post, nil
}

// chainHead is the name of the user's chain that begins with a target, if it is such a one.
func chainHead(target []byte) (string, bool) {
	name, _, data := extension(target)
	return name29(data), name == "ERROR"
}

// errMalformed is what the parsers return, wrapped, for what is not what the kernel would give.
var errMalformed = errors.New("malformed table")

// extensionHeader is the length of struct xt_entry_match and xt_entry_target, in bytes: a size of 16 bits, a
// name of 29 bytes, a revision of one.
const extensionHeader = 32

func extension(b []byte) (name string, revision uint32, data []byte) {
	return name29(b[2:31]), uint32(b[31]), b[extensionHeader:]
}

// isZero says whether there are only zeros.
func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
