package nftables

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// Watch calls changed, which must not wait, when somebody else changes our table or may have, until the context
// ends or it cannot go on. Changes of other tables are nothing to it, and where the kernel lets nobody else
// change ours, it has nothing to tell.
func (e *Engine) Watch(ctx context.Context, changed func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.open:
	}
	own := e.conn.Socket.PortID()
	return nfnetlink.Subscribe(ctx, e.netns, unix.NFNLGRP_NFTABLES, changed, func(m nfnetlink.Message) {
		if m.PortID != own && about(e.conn.family, e.conn.table, m) {
			changed()
		}
	})
}

// about says whether a notification is about our table or what is in it. The table's name is attribute 1
// of every object; generations have none.
func about(family uint8, table string, m nfnetlink.Message) bool {
	if m.Kind>>8 != unix.NFNL_SUBSYS_NFTABLES || m.Kind&0xff == unix.NFT_MSG_NEWGEN || m.Family() != family {
		return false
	}
	for a, err := range m.Attributes() {
		if err != nil {
			return true // who knows
		}
		if a.Kind == unix.NFTA_TABLE_NAME {
			return a.Text() == table
		}
	}
	return false
}
