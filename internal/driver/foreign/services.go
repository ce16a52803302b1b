package foreign

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Where kube-proxy keeps the addresses of services: a chain of iptables with a rule for each, a set of nf_tables,
// or a network interface for IPVS.
const (
	servicesChain     = "KUBE-SERVICES"
	servicesTable     = "kube-proxy"
	servicesSet       = "cluster-ips"
	servicesInterface = "kube-ipvs0"

	// maxServices bounds the addresses that are read from one of these places.
	maxServices = 4_096
)

// readServices reads the addresses of services from nf_tables and from the interface. Nothing is missing where
// kube-proxy is not.
func readServices(ctx context.Context) ([]netip.Addr, error) {
	var out []netip.Addr
	if i, err := net.InterfaceByName(servicesInterface); err == nil {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				out = append(out, p.Addr().Unmap())
			}
		}
	}
	socket, err := nfnetlink.Dial(0)
	if err != nil {
		return out, err
	}
	r := &tables{ctx: ctx, conn: nfnetlink.NewConn(socket), sets: map[place]*set{}, ipsets: newIPSets(ctx)}
	defer r.conn.Close()
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		for _, e := range r.readSet(place{family, servicesTable, servicesSet}).elements {
			if a, ok := netip.AddrFromSlice(e.key); ok {
				out = append(out, a)
			}
		}
		found, err := r.serviceRules(place{family, natTable, servicesChain})
		if err != nil {
			return out, err
		}
		out = append(out, found...)
	}
	return out, nil
}

// serviceRules are the single destinations that the rules of a chain ask for.
func (r *tables) serviceRules(in place) (out []netip.Addr, err error) {
	attrs := nfnetlink.AppendText(nil, unix.NFTA_RULE_TABLE, in.table)
	attrs = nfnetlink.AppendText(attrs, unix.NFTA_RULE_CHAIN, in.name)
	err = r.dump("reading the addresses of services", unix.NFT_MSG_GETRULE, in.family, attrs, func() { out = nil }, func(m nfnetlink.Message) error {
		raw, where, err := parseRule(m)
		if err != nil || where != in {
			return err
		}
		d := decoder{family: in.family, set: func(string) *set { return &set{} }, link: func(int) string { return "" }, ipsets: r.ipsets}
		rules, err := d.rule(raw.expressions)
		for _, rule := range rules {
			out = appendDestinations(out, rule.Matches)
		}
		if err == nil && len(out) > maxServices {
			return errTooMany
		}
		return err
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, errTooMany) {
		err = nil
	}
	return out, err
}

// appendDestinations appends the single address that matches ask the destination to be, if there is one.
func appendDestinations(out []netip.Addr, matches []diagnose.Match) []netip.Addr {
	for _, m := range matches {
		if m.Kind == diagnose.MatchDestination && !m.Not && len(m.Ranges) == 1 && m.Ranges[0].From() == m.Ranges[0].To() {
			return append(out, m.Ranges[0].From())
		}
	}
	return out
}

// services are the single destinations that the rules of a legacy table's chain ask for.
func (v *legacyVersion) services(byStart map[int]*legacyChain, ipsets *ipsets) (out []netip.Addr) {
	for _, c := range byStart {
		if c.name != servicesChain {
			continue
		}
		for i, entry := range c.entries {
			rule, _ := v.rule(entry, c.offsets[i], byStart, ipsets)
			if out = appendDestinations(out, rule.Matches); len(out) > maxServices {
				return out
			}
		}
	}
	return out
}

// sorted puts addresses in order, each once.
func sorted(list []netip.Addr) []netip.Addr {
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}
