package foreign

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// The protocol of ipset (linux/netfilter/ipset/ip_set.h).
const (
	ipsetProtocol = 6 // the oldest that kernels speak, for both ways to ask
	ipsetList     = unix.NFNL_SUBSYS_IPSET<<8 | 7

	ipsetAttrProtocol = 1
	ipsetAttrName     = 2
	ipsetAttrType     = 3
	ipsetAttrData     = 7 // of the set, and of an element
	ipsetAttrElements = 8
	ipsetAttrIP       = 1
	ipsetAttrCIDR     = 3
	ipsetAttrTimeout  = 6 // of the set: its elements come to an end
	ipsetAttrFlags    = 8 // of an element: such as one that takes addresses out
	ipsetAttrIPv4     = 1
	ipsetAttrIPv6     = 2

	optIPSet      = 83 // SO_IP_SET
	ipsetGetIndex = 7  // IP_SET_OP_GET_BYINDEX
	ipsetNameLen  = 32
)

// loopbackSet is kube-proxy's, by IPVS, of the pods that reach themselves through a service. It compares both
// ends of a connection, which are never the same where one is judged.
const loopbackSet = "KUBE-LOOP-BACK"

// ipset is a set of ipset's.
type ipset struct {
	name   string
	known  bool // its elements are addresses, and all were read
	ranges []netipx.IPRange
}

// ipsets reads sets of ipset's by their numbers, as rules name them, each once.
type ipsets struct {
	fetch func(index uint16) ipset
	read  map[uint16]ipset
}

func newIPSets(ctx context.Context) *ipsets {
	return &ipsets{read: map[uint16]ipset{}, fetch: func(index uint16) ipset {
		name := ipsetNameOf(index)
		ranges, err := readIPSet(ctx, name)
		slices.SortFunc(ranges, func(a, b netipx.IPRange) int { return a.From().Compare(b.From()) }) // the kernel's order is that of hashes
		return ipset{name, err == nil, ranges}                                                       // one that cannot be read is not known
	}}
}

func (s *ipsets) get(index uint16) ipset {
	set, ok := s.read[index]
	if !ok {
		set = s.fetch(index)
		s.read[index] = set
	}
	return set
}

// ipsetNameOf asks for the name of a set, by its number; "" if there is no answer.
func ipsetNameOf(index uint16) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	request := make([]byte, 8+ipsetNameLen) // struct ip_set_req_get_set
	binary.NativeEndian.PutUint32(request, ipsetGetIndex)
	binary.NativeEndian.PutUint32(request[4:], ipsetProtocol)
	binary.NativeEndian.PutUint16(request[8:], index)
	if err := getsockopt(fd, unix.SOL_IP, optIPSet, request); err != nil {
		return ""
	}
	return name29(request[8:])
}

// errOtherSet says that a set holds other things than addresses.
var errOtherSet = errors.New("a set of another type")

// readIPSet reads the addresses in a set.
func readIPSet(ctx context.Context, name string) (out []netipx.IPRange, err error) {
	if name == "" {
		return nil, errOtherSet
	}
	socket, err := nfnetlink.Dial(0)
	if err != nil {
		return nil, err
	}
	r := &tables{ctx: ctx, conn: nfnetlink.NewConn(socket)}
	defer r.conn.Close()
	attrs := nfnetlink.AppendAttr(nil, ipsetAttrProtocol, []byte{ipsetProtocol})
	attrs = nfnetlink.AppendText(attrs, ipsetAttrName, name)
	err = r.dumpKind("reading ipset "+name, ipsetList, unix.AF_UNSPEC, attrs, func() { out = nil }, func(m nfnetlink.Message) (err error) {
		if out, err = parseIPSet(out, m); err == nil && len(out) > maxElements {
			err = errTooMany
		}
		return err
	})
	return out, err
}

// parseIPSet decodes a message about a set, and appends the addresses in it to out.
func parseIPSet(out []netipx.IPRange, m nfnetlink.Message) ([]netipx.IPRange, error) {
	for a, err := range m.Attributes() {
		if err != nil {
			return nil, err
		}
		switch a.Kind {
		case ipsetAttrType:
			if t := a.Text(); t != "hash:ip" && t != "hash:net" {
				return nil, errOtherSet
			}
		case ipsetAttrData:
			data, err := attributesOf(a.Data)
			if err != nil {
				return nil, err
			}
			if data[ipsetAttrTimeout] != nil {
				return nil, errOtherSet
			}
		case ipsetAttrElements:
			for e, err := range nfnetlink.Attributes(a.Data) {
				if err != nil {
					return nil, err
				}
				r, err := parseIPSetElement(e.Data)
				if err != nil {
					return nil, err
				}
				out = append(out, r)
			}
		}
	}
	return out, nil
}

func parseIPSetElement(b []byte) (netipx.IPRange, error) {
	data, err := attributesOf(b)
	if err != nil {
		return netipx.IPRange{}, err
	}
	address, err := attributesOf(data[ipsetAttrIP])
	if err != nil {
		return netipx.IPRange{}, err
	}
	a, ok := netip.AddrFromSlice(address[ipsetAttrIPv4])
	if !ok {
		a, ok = netip.AddrFromSlice(address[ipsetAttrIPv6])
	}
	if !ok || data[ipsetAttrFlags] != nil {
		return netipx.IPRange{}, errOtherSet
	}
	bits := a.BitLen()
	if c := data[ipsetAttrCIDR]; len(c) == 1 {
		bits = int(c[0])
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netipx.IPRange{}, err
	}
	return netipx.RangeOfPrefix(p), nil
}

// match decodes xt_set_info_match, of which all revisions from 1 on begin alike: the number of the set, how many
// parts of a packet it compares, and for each whether that is of the source.
func (s *ipsets) match(revision uint32, info []byte) (string, []diagnose.Match, bool) {
	if revision < 1 || revision > 4 || len(info) < 4 {
		return "match set", nil, false
	}
	const (
		inverted    = 1 << 0 // IPSET_INV_MATCH
		firstSource = 1 << 1 // IPSET_DIM_ONE_SRC
	)
	set := s.get(binary.NativeEndian.Uint16(info))
	dim, flags := info[2], info[3]
	text := "match-set " + sign(flags&inverted != 0) + set.name
	switch {
	case set.name == loopbackSet && flags&inverted == 0:
		return text, []diagnose.Match{{Kind: diagnose.MatchNothing}}, true
	case dim != 1 || !set.known || flags&^(inverted|firstSource) != 0 || !isZero(info[4:]):
		return text, nil, false
	}
	m := diagnose.Match{Kind: diagnose.MatchDestination, Ranges: set.ranges, Not: flags&inverted != 0}
	text += " dst"
	if flags&firstSource != 0 {
		m.Kind, text = diagnose.MatchSource, text[:len(text)-len("dst")]+"src"
	}
	return text, []diagnose.Match{m}, true
}
