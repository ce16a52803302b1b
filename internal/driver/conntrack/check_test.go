package conntrack

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// unknownSubsystem is a socket whose requests are for a part of the kernel that no kernel has.
type unknownSubsystem struct{ nfnetlink.Socket }

func (s unknownSubsystem) Send(b []byte) error {
	binary.NativeEndian.PutUint16(b[4:], 0x3f<<8|messageStats&0xff) // nlmsg_type of struct nlmsghdr
	return s.Socket.Send(b)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	table := NewTable(labtest.NewHost(t, "node").FD())
	if err := table.Check(t.Context()); err != nil {
		t.Errorf("on a kernel that lists flows: %v", err)
	}
	dial := table.dial
	table.dial = func() (nfnetlink.Socket, error) {
		s, err := dial()
		return unknownSubsystem{s}, err
	}
	var missing *nfnetlink.UnsupportedError
	if err := table.Check(t.Context()); !errors.As(err, &missing) {
		t.Errorf("on one that does not: %v", err)
	}
}
