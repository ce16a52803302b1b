package nodefacts

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// The messages and attributes of ctnetlink that hold statistics (linux/netfilter/nfnetlink_conntrack.h).
const (
	getStatsCPU = unix.NFNL_SUBSYS_CTNETLINK<<8 | 4 // IPCTNL_MSG_CT_GET_STATS_CPU
	getStats    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5 // IPCTNL_MSG_CT_GET_STATS

	statsInsertFailed = 9  // CTA_STATS_INSERT_FAILED
	statsDrop         = 10 // CTA_STATS_DROP

	statsEntries = 1 // CTA_STATS_GLOBAL_ENTRIES
	statsLimit   = 2 // CTA_STATS_GLOBAL_MAX_ENTRIES
)

// Conntrack reads what connection tracking counts. It asks by netlink, which answers for the network
// namespace wherever /proc is mounted from.
func Conntrack(ctx context.Context) (*diagnose.Conntrack, error) {
	socket, err := nfnetlink.Dial(0)
	if err != nil {
		return nil, err
	}
	c := nfnetlink.NewConn(socket)
	defer c.Close()
	out := &diagnose.Conntrack{}
	err = c.Get(ctx, "reading the size of the conntrack table", c.Request(getStats, 0, unix.AF_UNSPEC), func(m nfnetlink.Message) error {
		return parseStats(out, m)
	})
	if err != nil {
		return nil, nfnetlink.Unsupported("connection tracking's netlink interface", err, unix.EINVAL, unix.EOPNOTSUPP)
	}
	err = c.Dump(ctx, "reading the counters of connection tracking", c.Request(getStatsCPU, unix.NLM_F_DUMP, unix.AF_UNSPEC), func(m nfnetlink.Message) error {
		return parseStatsCPU(out, m)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// parseStats decodes the size of the table.
func parseStats(out *diagnose.Conntrack, m nfnetlink.Message) error {
	for a, err := range m.Attributes() {
		v := uint32(0)
		if err == nil && (a.Kind == statsEntries || a.Kind == statsLimit) {
			v, err = a.Uint32()
		}
		if err != nil {
			return fmt.Errorf("the size of the conntrack table: %w", err)
		}
		switch a.Kind {
		case statsEntries:
			out.Entries = uint64(v)
		case statsLimit:
			out.Limit = uint64(v)
		}
	}
	return nil
}

// parseStatsCPU adds what one CPU has counted.
func parseStatsCPU(out *diagnose.Conntrack, m nfnetlink.Message) error {
	for a, err := range m.Attributes() {
		v := uint32(0)
		if err == nil && (a.Kind == statsInsertFailed || a.Kind == statsDrop) {
			v, err = a.Uint32()
		}
		if err != nil {
			return fmt.Errorf("the counters of connection tracking: %w", err)
		}
		switch a.Kind {
		case statsInsertFailed:
			out.InsertFailed += uint64(v)
		case statsDrop:
			out.Dropped += uint64(v)
		}
	}
	return nil
}
