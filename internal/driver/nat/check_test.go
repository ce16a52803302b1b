package nat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
)

// refusingSocket answers, in the kernel's place, datagrams that have messages of one kind in them: the last
// of these is refused with an error, and so is the last of a transaction, as the kernel does. Others it
// passes on.
type refusingSocket struct {
	nfnetlink.Socket
	kind   uint16
	word   string // only messages that hold it; "" for all
	errno  unix.Errno
	answer []byte
}

// over puts the socket before one that works.
func (s *refusingSocket) over(works nfnetlink.Socket) nfnetlink.Socket {
	s.Socket = works
	return s
}

func (s *refusingSocket) Send(b []byte) error {
	var refused, last uint32
	for m, err := range nfnetlink.Messages(b) {
		if err != nil {
			return err
		}
		if m.Kind == subsystem|s.kind && bytes.Contains(m.Body, []byte(s.word)) {
			refused = m.Seq
		}
		if m.Kind != unix.NFNL_MSG_BATCH_END {
			last = m.Seq
		}
	}
	if refused == 0 {
		return s.Socket.Send(b)
	}
	s.answer = appendError(nil, refused, s.errno)
	if last != refused {
		s.answer = appendError(s.answer, last, unix.ENOENT)
	}
	return nil
}

// appendError appends a struct nlmsghdr and a struct nlmsgerr without what it quotes.
func appendError(b []byte, seq uint32, errno unix.Errno) []byte {
	const size = 36
	b = binary.NativeEndian.AppendUint32(b, size)
	b = binary.NativeEndian.AppendUint32(b, unix.NLMSG_ERROR)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint32(b, -uint32(errno))
	return append(b, make([]byte, size-20)...)
}

func (s *refusingSocket) Receive(b []byte) (int, error) {
	if s.answer != nil {
		n := copy(b, s.answer)
		s.answer = nil
		return n, nil
	}
	return s.Socket.Receive(b)
}

func TestCheckFinds(t *testing.T) {
	t.Parallel()
	const capability, unsupported = "capability CAP_NET_ADMIN is missing", "Linux 5.10 or later with nf_tables is needed"
	for _, c := range []struct {
		name  string
		kind  uint16
		word  string
		errno unix.Errno
		want  []string // in the error; none: there is no error
	}{
		{"no capability", unix.NFT_MSG_GETGEN, "", unix.EPERM, []string{capability, "AmbientCapabilities", "securityContext"}},
		{"no nf_tables", unix.NFT_MSG_GETGEN, "", unix.EINVAL, []string{"nf_tables", unsupported}},
		{"no inet tables", unix.NFT_MSG_NEWTABLE, "", unix.EAFNOSUPPORT, []string{"tables of family inet", unsupported}},
		{"no nat chains", unix.NFT_MSG_NEWCHAIN, "nat\x00", unix.ENOENT, []string{"nft_chain_nat", unsupported}},
		{"no masquerading", unix.NFT_MSG_NEWRULE, "masq\x00", unix.ENOENT, []string{"nft_masq", unsupported}},
		{"no sockets", unix.NFT_MSG_NEWRULE, "socket\x00", unix.ENOENT, []string{"nft_socket", unsupported}},
		{"no routes", unix.NFT_MSG_NEWRULE, "fib\x00", unix.ENOENT, []string{"nft_fib_inet", unsupported}},
		{"no counters in sets", unix.NFT_MSG_NEWSET, "", unix.EOPNOTSUPP, []string{"interval sets", unsupported}},
		{"a table that another agent just made", unix.NFT_MSG_NEWTABLE, "", unix.EPERM, nil},
		{"a lost answer", unix.NFT_MSG_GETTABLE, "", unix.ENOBUFS, nil},
		{"nothing", unix.NFT_MSG_NEWFLOWTABLE, "", unix.EPERM, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := newNamespace(t).open(nftables.Options{Wrap: (&refusingSocket{kind: c.kind, word: c.word, errno: c.errno}).over})
			err := d.Check(t.Context())
			if (err == nil) != (c.want == nil) {
				t.Fatalf("Check: %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if err != nil && !errors.Is(err, c.errno) {
				t.Errorf("%q hides %q", err, c.errno)
			}
		})
	}
}

func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	ns, plan := newNamespace(t), simplePlan(t)
	d := ns.driver()
	for _, present := range []bool{false, true} {
		if present {
			mustApply(t, d, plan)
		}
		before := ns.generation()
		ruleset := ns.nft("list", "ruleset")
		if err := ns.driver().Check(t.Context()); err != nil {
			t.Errorf("on a kernel on which the other tests pass: %v", err)
		}
		after := ns.generation()
		if after != before || ns.nft("list", "ruleset") != ruleset {
			t.Errorf("generation %d became %d, and\n%s became\n%s", before, after, ruleset, ns.nft("list", "ruleset"))
		}
	}
}
