package diagnose

import (
	"fmt"
	"time"
)

// nearlyFull is the share of the conntrack table, in percent, from which it is reported.
const nearlyFull = 90

// conntrack finds a table that is nearly full, and connections that were dropped within the window.
func conntrack(now, earlier *Conntrack, f *Facts) []Problem {
	var found []Problem
	full := now.Limit > 0 && now.Entries*100 >= now.Limit*nearlyFull
	if full {
		found = append(found, Problem{Kind: ConntrackFull, Object: "connection tracking", Field: "net.netfilter.nf_conntrack_max",
			What:   fmt.Sprintf("%d of %d entries are in use (%d%%): when all are, the kernel drops new connections", now.Entries, now.Limit, now.Entries*100/now.Limit),
			Remedy: fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d, in the first network namespace; or find who opens so many: sallyport flows", 2*now.Limit)})
	}
	if earlier == nil {
		return found
	}
	window := f.Window.Round(time.Second)
	failed := grown(now.InsertFailed, earlier.InsertFailed)
	if failed > 0 {
		found = append(found, Problem{Kind: InsertFailures, Object: "connection tracking", Field: "insert_failed",
			What:   fmt.Sprintf("%d first packets of connections were dropped within %v: no free source port towards their destination, or two packets took the same one at once", failed, window),
			Remedy: "widen portRange, use portAllocation FullyRandom, or let pods on more nodes open them; sallyport status -o json has the busiest destinations"})
	}
	if dropped := grown(now.Dropped, earlier.Dropped); dropped > failed && !full {
		found = append(found, Problem{Kind: ConntrackFull, Object: "connection tracking", Field: "drop",
			What:   fmt.Sprintf("%d packets were dropped within %v for want of room in the table (%d of %d entries now)", dropped-failed, window, now.Entries, now.Limit),
			Remedy: fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d, in the first network namespace", 2*now.Limit)})
	}
	return found
}

// grown is by how much a counter has grown; one that was reset has not.
func grown(now, earlier uint64) uint64 {
	if now < earlier {
		return 0
	}
	return now - earlier
}
