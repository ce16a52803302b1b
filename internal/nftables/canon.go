package nftables

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// canonical renders a list of expressions (the data of NFTA_RULE_EXPRESSIONS) so that two rules that do
// the same have the same form, whether they were written by us or read from the kernel:
//
//   - attributes are sorted by type;
//   - an attribute that is all zero is left out, since the kernel writes some of those that we leave
//     out, and the other way round; the values that are compared or loaded are always kept;
//   - what the kernel derives is left out: the id of a set within a transaction, counter values, and
//     the flags of a nat expression that say that there is an address and ports.
//
// An expression that this package never writes is rendered too, and makes the rule differ.
func canonical(list []byte) (string, error) {
	var out strings.Builder
	for a, err := range nfnetlink.Attributes(list) {
		if err != nil {
			return "", err
		}
		name, data, err := parseExpression(a.Data)
		if err != nil {
			return "", err
		}
		form, err := canonicalAttributes(name, "", data)
		if err != nil {
			return "", fmt.Errorf("expression %q: %w", name, err)
		}
		fmt.Fprintf(&out, "%q{%s}", name, form)
	}
	return out.String(), nil
}

// parseExpression splits an expression into its name and its data, which may be absent.
func parseExpression(b []byte) (name string, data []byte, err error) {
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return "", nil, err
		}
		switch a.Kind {
		case unix.NFTA_EXPR_NAME:
			name = a.Text()
		case unix.NFTA_EXPR_DATA:
			data = a.Data
		}
	}
	return name, data, nil
}

// canonicalAttributes renders the attributes of one expression. The path is where they stand in it, as
// types joined by dots, each followed by one.
func canonicalAttributes(name, path string, b []byte) (string, error) {
	var parts []string
	for a, err := range nfnetlink.Attributes(b) {
		if err != nil {
			return "", err
		}
		at := fmt.Sprintf("%s%d", path, a.Kind)
		if derived(name, at) {
			continue
		}
		if nested(name, at) {
			inner, err := canonicalAttributes(name, at+".", a.Data)
			if err != nil {
				return "", err
			}
			parts = append(parts, inner)
			continue
		}
		value := maskDerived(name, at, a.Data)
		if allZero(value) && !keepZero(name, at) {
			continue
		}
		parts = append(parts, at+"="+hex.EncodeToString(value))
	}
	slices.Sort(parts)
	return strings.Join(parts, " "), nil
}

// nested says whether the attribute at a path holds attributes. The kernel does not mark all that do.
func nested(name, path string) bool {
	switch name {
	case "cmp":
		return path == "3" || path == "3.2" // NFTA_CMP_DATA, NFTA_DATA_VERDICT
	case "immediate":
		return path == "2" || path == "2.2" // NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT
	case "bitwise":
		return path == "4" || path == "5" // NFTA_BITWISE_MASK, NFTA_BITWISE_XOR
	}
	return false
}

// keepZero says whether zeros at a path mean something else than nothing: a value and its length, or a register.
func keepZero(name, path string) bool {
	return name == "cmp" && path == "3.1" || name == "immediate" && path == "2.1" || // NFTA_DATA_VALUE
		name == "lookup" && path == "3" // NFTA_LOOKUP_DREG, where the register of verdicts is 0
}

// derived says whether the kernel makes up what is at a path.
func derived(name, path string) bool {
	return name == "lookup" && path == "4" || // NFTA_LOOKUP_SET_ID
		name == "counter"
}

// maskDerived clears what the kernel makes up in the flags of a nat expression (nft_nat_init of
// net/netfilter/nft_nat.c).
func maskDerived(name, path string, data []byte) []byte {
	if name != "nat" || path != "7" || len(data) != 4 { // NFTA_NAT_FLAGS
		return data
	}
	masked := slices.Clone(data)
	masked[3] &^= unix.NF_NAT_RANGE_MAP_IPS | unix.NF_NAT_RANGE_PROTO_SPECIFIED
	return masked
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
