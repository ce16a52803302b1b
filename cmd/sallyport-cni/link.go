package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// deleteLink deletes a device of the plugin's own namespace by its name; one that does not exist is no error. It is the one
// message of rtnetlink that the plugin sends, RTM_DELLINK of rtnetlink(7).
func deleteLink(name string) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening a socket of rtnetlink: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, deletion(name), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("asking the kernel to delete device %s: %w", name, err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0) // the answer is there when the request has been sent
	if err != nil {
		return fmt.Errorf("reading whether device %s is deleted: %w", name, err)
	}
	if err := outcome(answer[:n]); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("deleting device %s: %w", name, err)
	}
	return nil
}

// deletion is the message: a header, the fixed part, which names no index, and the name as an attribute.
func deletion(name string) []byte {
	attr := unix.SizeofRtAttr + len(name) + 1
	size := unix.SizeofNlMsghdr + unix.SizeofIfInfomsg + attr
	b := binary.NativeEndian.AppendUint32(nil, uint32(size))
	b = binary.NativeEndian.AppendUint16(b, unix.RTM_DELLINK)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = append(b, make([]byte, unix.SizeofNlMsghdr-8+unix.SizeofIfInfomsg)...) // sequence, port, struct ifinfomsg: all 0
	b = binary.NativeEndian.AppendUint16(b, uint16(attr))
	b = binary.NativeEndian.AppendUint16(b, unix.IFLA_IFNAME)
	return append(append(b, name...), 0)
}

// outcome reads the acknowledgement: a header, and the negative error number.
func outcome(b []byte) error {
	if len(b) < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(b[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel's answer is no acknowledgement")
	}
	if code := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
