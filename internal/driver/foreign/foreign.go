// Package foreign reads the rules of others that translate source addresses: those of nf_tables, which
// iptables-nft makes too, and those of legacy iptables. It puts them into a form that can be judged. It also
// reads the addresses of services where kube-proxy keeps them.
//
// It promises that a match or an action that it does not understand is called unknown and never left out;
// that it asks only for chains that the postrouting hook leads to, and for kube-proxy's; and that it makes
// nothing: not even to look at a legacy table makes the kernel create one. It works in the network namespace
// of the calling thread.
package foreign

import (
	"context"
	"errors"
	"net"

	"github.com/sallyport/sallyport/internal/diagnose"
)

// Bounds on what is read.
const (
	maxChains   = 2_000  // that the hook leads to
	maxRules    = 20_000 // of these
	maxElements = 4_096  // of one set
	maxTries    = 5      // of one dump that others interrupt
)

// errTooMany says that a bound was reached.
var errTooMany = errors.New("there are more than can be judged")

// Read reads the rules of others. Ours is the name of our own table of family inet, which is passed over.
// With an error, what could be read is returned.
func Read(ctx context.Context, ours string) (*diagnose.Ruleset, error) {
	out := &diagnose.Ruleset{}
	ipsets := newIPSets(ctx)
	chains, err := readTables(ctx, ours, ipsets)
	out.Chains = append(out.Chains, chains...)
	services, serr := readServices(ctx)
	errs := []error{err, serr}
	for _, v := range legacyVersions() {
		chains, found, err := v.read(ipsets)
		out.Chains = append(out.Chains, chains...)
		services = append(services, found...)
		errs = append(errs, err)
	}
	out.Services = sorted(services)
	return out, errors.Join(errs...)
}

// interfaceName is the name of the interface with a number, or "".
func interfaceName(index int) string {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return ""
	}
	return i.Name
}
