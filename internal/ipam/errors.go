package ipam

import (
	"fmt"
	"net/netip"
	"strings"
)

// ExhaustedError says that no pool has an address, and why each could not serve.
type ExhaustedError struct {
	V6    bool
	Tried []Refusal
}

func (e *ExhaustedError) Error() string {
	family := "IPv4"
	if e.V6 {
		family = "IPv6"
	}
	if len(e.Tried) == 0 {
		return "no " + family + " address: there is no " + family + " pool; create an IPPool"
	}
	why := make([]string, len(e.Tried))
	for i, r := range e.Tried {
		why[i] = r.String()
	}
	return "no " + family + " address: " + strings.Join(why, "; ")
}

// UnavailableError says why a very address cannot be given.
type UnavailableError struct {
	Addr netip.Addr
	Why  string
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("address %s cannot be given: %s", e.Addr, e.Why)
}
