package validatetest

import (
	"fmt"
	"strings"
)

// Difference is a way in which Sallyport's definition of IPPool judges otherwise than Calico's. docs/calico.md lists
// each in the same words; a test compares.
type Difference struct {
	Accepted bool     // by Sallyport, and refused by Calico's definition; else the other way round
	What     string   // is judged otherwise
	Why      string   // Sallyport does not follow
	Cases    []string // of Calico's table, all that differ for this reason; an update is OLD -> NEW
}

// Differences lists all of them.
func Differences() []Difference { //nolint:funlen // a table
	return []Difference{
		{
			Accepted: true,
			What:     "Another text for the same IPv6 range",
			Why:      "The value does not change, and a manifest may be written by another tool.",
			Cases: []string{
				"{cidr: 'fd00::/64'} -> {cidr: 'FD00::/64'}",
				"{cidr: 'fd00::/64'} -> {cidr: 'fd00:0:0:0::/64'}",
				"{cidr: 'FD00::/64'} -> {cidr: 'fd00::/64'}",
				"{cidr: 'FD00::/64'} -> {cidr: 'fd00:0:0:0::/64'}",
				"{cidr: 'fd00:0:0:0::/64'} -> {cidr: 'fd00::/64'}",
				"{cidr: 'fd00:0:0:0::/64'} -> {cidr: 'FD00::/64'}",
			},
		},
		{
			Accepted: true,
			What:     "`blockSize` from 0 to its default, and back",
			Why:      "0 means the default, so that nothing changes.",
			Cases: []string{
				"{cidr: 10.0.0.0/16, blockSize: 0} -> {cidr: 10.0.0.0/16, blockSize: 26}",
				"{cidr: 10.0.0.0/16, blockSize: 26} -> {cidr: 10.0.0.0/16, blockSize: 0}",
				"{cidr: 'fd00::/64', blockSize: 0} -> {cidr: 'fd00::/64', blockSize: 122}",
				"{cidr: 'fd00::/64', blockSize: 122} -> {cidr: 'fd00::/64', blockSize: 0}",
			},
		},
		{
			Accepted: true,
			What:     "A selector of 1025 to 262144 bytes",
			Why:      "Calico before this bound has stored longer ones, such as lists of many nodes.",
			Cases: []string{
				longSelector("nodeSelector", 1025), longSelector("nodeSelector", 262144),
				longSelector("namespaceSelector", 1025), longSelector("namespaceSelector", 262144),
			},
		},
		{
			What: "A selector that cannot be read",
			Why:  "It would select nothing, without a word. `sallyport validate` and `apply` refuse it. The rules of an API server cannot read selectors: there the pool's condition Allocatable names the fault.",
			Cases: []string{
				`{cidr: 10.0.0.0/16, nodeSelector: "zone = 'a'"}`, `{cidr: 10.0.0.0/16, namespaceSelector: "zone = 'a'"}`,
				`{cidr: 10.0.0.0/16, nodeSelector: "(has(a)"}`, `{cidr: 10.0.0.0/16, namespaceSelector: "(has(a)"}`,
				`{cidr: 10.0.0.0/16, nodeSelector: "zone"}`, `{cidr: 10.0.0.0/16, namespaceSelector: "zone"}`,
			},
		},
		{
			What: "`blockSize` from no value to another than the default, and back",
			Why:  "No value means 26 or 122, so that the size of blocks which nodes own would change. Calico's rule is asked only where both versions have a value.",
			Cases: []string{
				"{cidr: 10.0.0.0/16} -> {cidr: 10.0.0.0/16, blockSize: 24}",
				"{cidr: 10.0.0.0/16} -> {cidr: 10.0.0.0/16, blockSize: 27}",
				"{cidr: 10.0.0.0/16, blockSize: 24} -> {cidr: 10.0.0.0/16}",
				"{cidr: 10.0.0.0/16, blockSize: 24} -> {cidr: 10.0.0.0/16, blockSize: null}",
				"{cidr: 'fd00::/64'} -> {cidr: 'fd00::/64', blockSize: 120}",
				"{cidr: 'fd00::/64', blockSize: 120} -> {cidr: 'fd00::/64'}",
				"{cidr: 10.0.0.0/28, disabled: true} -> {cidr: 10.0.0.0/28, blockSize: 28}",
				"{cidr: 10.0.0.0/28, disabled: true} -> {cidr: 10.0.0.0/28, blockSize: 28, disabled: true}",
			},
		},
		{
			What: "`LoadBalancer` taken out of `allowedUses`",
			Why:  "Services have addresses of the pool, which pods would be given too.",
			Cases: []string{
				"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]} -> {cidr: 10.0.0.0/16}",
				"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]} -> {cidr: 10.0.0.0/16, allowedUses: []}",
				"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]} -> {cidr: 10.0.0.0/16, allowedUses: [Workload]}",
				"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]} -> {cidr: 10.0.0.0/16, allowedUses: [Tunnel]}",
				"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]} -> {cidr: 10.0.0.0/16, allowedUses: [Workload, Tunnel]}",
			},
		},
	}
}

// longSelector is the case of a selector of n bytes.
func longSelector(field string, n int) string {
	return fmt.Sprintf("{cidr: 10.0.0.0/16, %s: %q}", field, "a == '"+strings.Repeat("x", n-7)+"'")
}
