package rtnetlink

import (
	"encoding/binary"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Unheard are notifications that the kernel need not deliver to a subscriber. One that is delivered costs a copy, a wake-up and two
// system calls, and the kernel tells of each route of thousands that an agent adds at its start.
type Unheard struct {
	From       []uint32 // those about what these sockets changed (PortID)
	Kinds      []uint16 // of these kinds (unix.RTM_…)
	Forwarding bool     // those about forwarding entries
	// RoutesBut are those about routes, but for prefixes of these lengths; nil stands for no route.
	RoutesBut []uint8
}

// Where the fields of a message are, in bytes: in its header, and in struct rtmsg or ndmsg after it.
const (
	kindOffset, senderOffset = 4, 12
	familyOffset             = unix.SizeofNlMsghdr
	lengthOffset             = unix.SizeofNlMsghdr + 1 // rtm_dst_len
)

// filter is a program for the socket, which sees each notification as a message of its own. It takes as many bytes as it returns.
func (u *Unheard) filter() ([]bpf.RawInstruction, error) {
	drop := bpf.RetConstant{Val: 0}
	kind := bpf.LoadAbsolute{Off: kindOffset, Size: 2}
	p := []bpf.Instruction{kind}
	for _, k := range u.Kinds {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native16(k), SkipTrue: 1}, drop)
	}
	if len(u.From) > 0 {
		p = append(p, bpf.LoadAbsolute{Off: senderOffset, Size: 4})
	}
	for _, id := range u.From {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native32(id), SkipTrue: 1}, drop)
	}
	if u.Forwarding {
		p = append(p, kind)
		p = append(p, of(unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH, 3)...)
		p = append(p, bpf.LoadAbsolute{Off: familyOffset, Size: 1}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_BRIDGE, SkipTrue: 1}, drop)
	}
	if n := len(u.RoutesBut); n > 0 {
		p = append(p, kind)
		p = append(p, of(unix.RTM_NEWROUTE, unix.RTM_DELROUTE, n+2)...)
		p = append(p, bpf.LoadAbsolute{Off: lengthOffset, Size: 1})
		for i, l := range u.RoutesBut {
			p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(l), SkipTrue: uint8(n - i)})
		}
		p = append(p, drop)
	}
	return bpf.Assemble(append(p, bpf.RetConstant{Val: ^uint32(0)}))
}

// of goes on for two kinds of messages, and skips so many instructions for all others.
func of(one, other uint16, skip int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: native16(one), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native16(other), SkipTrue: uint8(skip)},
	}
}

// native16 and native32 are numbers of a message as a program loads them: it takes the bytes for those of the network's order.
func native16(v uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
}

func native32(v uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v))
}
