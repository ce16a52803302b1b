package conntrack

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// messageStats asks how many flows are tracked: IPCTNL_MSG_CT_GET_STATS.
const messageStats = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5

// Check looks whether the kernel can list flows at all, and changes nothing. The error is an
// *nfnetlink.UnsupportedError if it cannot.
func (t *Table) Check(ctx context.Context) error {
	c, err := t.open()
	if err != nil {
		return err
	}
	err = c.Get(ctx, "asking how many flows are tracked", c.Request(messageStats, 0, unix.AF_UNSPEC), func(nfnetlink.Message) error { return nil })
	return errors.Join(unsupported(err), c.Close())
}

// unsupported makes the error by which a kernel refuses requests to a subsystem that it does not have an
// *nfnetlink.UnsupportedError (nfnetlink_rcv_msg of net/netfilter/nfnetlink.c).
func unsupported(err error) error {
	return nfnetlink.Unsupported("listing of tracked flows (CONFIG_NF_CT_NETLINK, module nf_conntrack_netlink)", err, unix.EINVAL)
}
