package nat

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Watch calls changed, which must not wait, when somebody else changes our table or may have, until the context
// ends or it cannot go on. Changes of other tables are nothing to it, and where the kernel lets nobody else
// change ours, it has nothing to tell.
func (d *Driver) Watch(ctx context.Context, changed func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.open:
	}
	own := d.conn.Socket.PortID()
	return nfnetlink.Subscribe(ctx, d.netns, unix.NFNLGRP_NFTABLES, changed, func(m nfnetlink.Message) {
		if m.PortID != own && aboutUs(m) {
			changed()
		}
	})
}

// aboutUs says whether a notification is about our table or what is in it. The table's name is attribute 1
// of every object; generations have none.
func aboutUs(m nfnetlink.Message) bool {
	if m.Kind>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Kind&0xff == unix.NFT_MSG_NEWGEN || m.Family() != unix.NFPROTO_INET {
		return false
	}
	for a, err := range m.Attributes() {
		if err != nil {
			return true // who knows
		}
		if a.Kind == unix.NFTA_TABLE_NAME {
			return a.Text() == TableName
		}
	}
	return false
}
