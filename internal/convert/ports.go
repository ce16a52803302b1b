package convert

import (
	"fmt"
	"strconv"
	"strings"
)

// ports is an inclusive range of ports.
type ports struct{ first, last int }

func (p ports) String() string { return fmt.Sprintf("%d-%d", p.first, p.last) }

// size is how many ports there are.
func (p ports) size() int { return p.last - p.first + 1 }

// parsePorts reads FIRST-LAST, with another separator if wanted, or a single port; or it says what is wrong.
func parsePorts(s, separator string) (p ports, wrong string) {
	first, last, isRange := strings.Cut(s, separator)
	if !isRange {
		last = first
	}
	lo, err1 := strconv.ParseUint(first, 10, 16)
	hi, err2 := strconv.ParseUint(last, 10, 16)
	p = ports{int(lo), int(hi)}
	switch {
	case err1 != nil || err2 != nil || hi == 0:
		return p, fmt.Sprintf("%s is no range of ports: write FIRST%sLAST with ports from 1 to 65535", quote(s), separator)
	case lo == 0:
		return p, fmt.Sprintf("%s begins with port 0, which does not exist: write 1%s%d", quote(s), separator, hi)
	case lo > hi:
		return p, fmt.Sprintf("%s ends before it begins: write %d%s%d", quote(s), hi, separator, lo)
	case lo == vxlanPort && hi == vxlanPort:
		return p, fmt.Sprintf("%s is the port of VXLAN alone, which translated UDP must not use: widen the range", quote(s))
	}
	return p, ""
}

// vxlanPort is a port that a NATConfiguration refuses as its whole range.
const vxlanPort = 4789
