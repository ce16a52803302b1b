package conntrack

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// messageStats asks how many flows are tracked (IPCTNL_MSG_CT_GET_STATS); statsEntries is the number in the answer
// (CTA_STATS_GLOBAL_ENTRIES).
const (
	messageStats = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5
	statsEntries = 1
)

// Check looks whether the kernel can list flows at all, and changes nothing. The error is an
// *nfnetlink.UnsupportedError if it cannot.
func (t *Table) Check(ctx context.Context) error {
	_, err := t.Count(ctx)
	return err
}

// Count is how many entries the kernel has in the table, with those that no packet has confirmed yet. It costs one
// question. Errors are as those of Check.
func (t *Table) Count(ctx context.Context) (entries int, err error) {
	c, err := t.open()
	if err != nil {
		return 0, err
	}
	entries = -1
	err = c.Get(ctx, "asking how many flows are tracked", c.Request(messageStats, 0, unix.AF_UNSPEC), func(m nfnetlink.Message) error {
		for a, err := range nfnetlink.Attributes(m.Payload()) {
			if err != nil {
				return err
			}
			if a.Kind == statsEntries {
				n, err := a.Uint32()
				if err != nil {
					return err
				}
				entries = int(n)
			}
		}
		return nil
	})
	if err == nil && entries < 0 {
		err = fmt.Errorf("%w: an answer without the number of flows", nfnetlink.ErrMalformed)
	}
	return entries, errors.Join(unsupported(err), c.Close())
}

// unsupported makes the error by which a kernel refuses requests to a subsystem that it does not have an
// *nfnetlink.UnsupportedError (nfnetlink_rcv_msg of net/netfilter/nfnetlink.c).
func unsupported(err error) error {
	return nfnetlink.Unsupported("listing of tracked flows (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink)", err, unix.EINVAL)
}
