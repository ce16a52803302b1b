package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// variant is one way for a node to forward what pods send.
type variant struct {
	Name string `json:"name"`
	Says string `json:"says"`

	noNode     bool // pod and server are joined directly
	tracked    bool // connections are
	translated bool // what leaves the pods' range is
	install    func(ctx context.Context, v *variantNode) error
}

// variantNode is where a variant is installed.
type variantNode struct {
	*network
	o        options
	tmp      string
	iptables string // "legacy" or "nft"
	stops    []func() error
}

// The variant that is subtracted, and the one that is divided by.
const (
	withoutNode = "no node"
	baseline    = "nftables masquerade"
)

// variants are what is compared. All that translate declare the same and choose ports in the same way
// (fully random, Sallyport's default), so that only the shape of the rules differs.
func variants(o options) []variant {
	nft := func(ruleset string) func(context.Context, *variantNode) error {
		return func(ctx context.Context, v *variantNode) error { return nftLoad(ctx, v.node, ruleset) }
	}
	iptables := func(sets, rules string) func(context.Context, *variantNode) error {
		return func(ctx context.Context, v *variantNode) error {
			if sets != "" {
				if _, err := pipe(ctx, v.node, sets, "ipset", "restore"); err != nil {
					return err
				}
			}
			_, err := pipe(ctx, v.node, rules, "iptables-"+v.iptables+"-restore")
			return err
		}
	}
	list := []variant{
		{Name: withoutNode, Says: "pod and server joined directly: the generator's share", noNode: true},
		{Name: "plain forwarding", Says: "no rule, no connection tracking"},
		{Name: "plain, tracked", Says: "no rule, connections are tracked", tracked: true, install: nft(trackRules())},
		{Name: baseline, Says: "one nftables rule by hand: the baseline", tracked: true, translated: true, install: nft(handRules())},
		{Name: "the same again", Says: "a second node like the baseline: what differs is the measurement's error", tracked: true, translated: true, install: nft(handRules())},
		{Name: "iptables and ipset", Says: "one iptables rule with two sets", tracked: true, translated: true, install: iptables(poolSets(), oneRule)},
		{Name: "Felix-like", Says: "the same in chains like Calico's, about 20 rules for each packet", tracked: true, translated: true, install: iptables(poolSets(), felixLike)},
		{Name: "ip-masq-agent", Says: "iptables chain of 64 ranges", tracked: true, translated: true, install: iptables("", masqAgentRules())},
		{Name: "Sallyport", Says: "the agent with its defaults", tracked: true, translated: true, install: installSallyport(func(o options) string { return o.program })},
	}
	if o.before != "" {
		list = append(list, variant{Name: "Sallyport before", Says: "another version of the agent with its defaults", tracked: true, translated: true,
			install: installSallyport(func(o options) string { return o.before })})
	}
	return list
}

// installSallyport runs the real agent on one translated pool and as many exempt ones as there are ranges.
func installSallyport(program func(options) string) func(context.Context, *variantNode) error {
	return func(ctx context.Context, v *variantNode) error {
		o := v.o
		o.program = program(o)
		return v.runSallyport(ctx, o)
	}
}

func (v *variantNode) runSallyport(ctx context.Context, o options) error {
	dir, state, err := emptyNode(v.tmp)
	if err != nil {
		return err
	}
	if err := writeManifest(dir, 0, translatedRange, "natOutgoing: true"); err != nil {
		return err
	}
	for i := range exemptRanges {
		if err := writeManifest(dir, i+1, exemptRange(i), "disabled: true"); err != nil {
			return err
		}
	}
	a, err := startAgent(ctx, o, v.network, dir, state)
	if err != nil {
		return err
	}
	v.stops = append(v.stops, a.stop)
	return a.ready(ctx)
}

// build makes the variant's network, installs it and checks that it does what it says.
func (v variant) build(ctx context.Context, o options, tmp, iptables string) (_ *path, err error) {
	n, err := newNetwork(!v.noNode)
	if err != nil {
		return nil, err
	}
	at := &variantNode{network: n, o: o, tmp: tmp, iptables: iptables}
	p := &path{variantNode: at}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("variant %q: %w", v.Name, err), p.close())
		}
	}()
	if v.install != nil {
		if err := v.install(ctx, at); err != nil {
			return nil, err
		}
	}
	if err := v.check(ctx, at); err != nil {
		return nil, err
	}
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// check compares who the server sees, and whether connections are tracked, with what the variant says.
func (v variant) check(ctx context.Context, at *variantNode) error {
	want := podAddr
	if v.translated {
		want = nodeAddr
	}
	for _, c := range []struct{ to, want netip.Addr }{{outsideAddr, want}, {exemptAddr, podAddr}, {peerAddr, podAddr}} {
		for _, network := range []string{"tcp4", "udp4"} {
			saw, err := at.seenFrom(ctx, network, c.to)
			if err != nil {
				return err
			}
			if saw != c.want {
				return fmt.Errorf("not valid: over %s, %s saw the pod as %s, want %s", network, c.to, saw, c.want)
			}
		}
	}
	tracked, err := flows(at.node)
	if err != nil {
		return err
	}
	if (tracked > 0) != v.tracked {
		return fmt.Errorf("not valid: the node tracks %d flows, and is to track some: %t", tracked, v.tracked)
	}
	return nil
}
