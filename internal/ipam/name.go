package ipam

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Name is the name of the IPBlock of a CIDR, which is how the API server gives each block to one node only:
// 4-10-244-1-0-26 for 10.244.1.0/26, and 6-fd00-0010-0000-0000-0000-0000-0000-0040-122 for fd00:10::40/122.
func Name(cidr netip.Prefix) string {
	cidr = cidr.Masked()
	parts := []string{"4"}
	if a := cidr.Addr(); a.Is4() {
		for _, b := range a.As4() {
			parts = append(parts, strconv.Itoa(int(b)))
		}
	} else {
		parts[0] = "6"
		for b := a.AsSlice(); len(b) > 0; b = b[2:] {
			parts = append(parts, fmt.Sprintf("%04x", binary.BigEndian.Uint16(b)))
		}
	}
	return strings.Join(append(parts, strconv.Itoa(cidr.Bits())), "-")
}

// ParseName is the CIDR of the IPBlock of a name. A name that Name does not give is an error, so that no CIDR has two.
func ParseName(name string) (netip.Prefix, error) {
	fault := fmt.Errorf("%q is not the name of an IPBlock, such as 4-10-244-1-0-26 for 10.244.1.0/26", name)
	family, rest, _ := strings.Cut(name, "-")
	i := strings.LastIndexByte(rest, '-')
	if i < 0 {
		return netip.Prefix{}, fault
	}
	between := "."
	if family == "6" {
		between = ":"
	}
	cidr, err := netip.ParsePrefix(strings.ReplaceAll(rest[:i], "-", between) + "/" + rest[i+1:])
	if err != nil || Name(cidr) != name {
		return netip.Prefix{}, fault
	}
	return cidr, nil
}
