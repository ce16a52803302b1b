package verify

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

var far = netip.MustParseAddrPort("198.51.100.1:3478")

// TestInboxKeepsWhatConcernsTheRun, so that no flood of third parties hides what does.
func TestInboxKeepsWhatConcernsTheRun(t *testing.T) {
	t.Parallel()
	in := newInbox(far.Addr())
	in.pingID = 7
	id := func(n uint16) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, n) }
	stray := []event{
		{kind: errorExpired, by: h1, protocol: unix.IPPROTO_UDP, to: outside},
		{kind: errorTooBig, by: h1, protocol: unix.IPPROTO_ICMP, from: id(8), to: netip.AddrPortFrom(far.Addr(), 0)},
		{by: h1, from: id(7)},
		{by: far.Addr(), from: id(8)},
	}
	for range inboxMost {
		for _, e := range stray {
			in.add(e)
		}
		in.answer(&message{id: transaction{9}}, 100)
	}
	if len(in.events)+len(in.answers) != 0 || in.full {
		t.Fatalf("kept: %d events, %d answers, full: %t", len(in.events), len(in.answers), in.full)
	}
	in.ask(transaction{9})
	in.answer(&message{id: transaction{9}}, 100)
	in.expect(outside.Addr())
	for _, e := range []event{stray[0], {by: far.Addr(), from: id(7)}, {kind: errorExpired, protocol: unix.IPPROTO_ICMP, from: id(7), to: netip.AddrPortFrom(far.Addr(), 0)}} {
		in.add(e)
	}
	if len(in.events) != 3 || len(in.answers) != 1 {
		t.Errorf("kept: %d events, %d answers", len(in.events), len(in.answers))
	}
	for range inboxMost {
		in.add(stray[0])
	}
	if len(in.events) != inboxMost || !in.full {
		t.Errorf("kept: %d events, full: %t", len(in.events), in.full)
	}
}

// TestProbesGoToHostsAlone: a server could name any address as the one that arrived.
func TestProbesGoToHostsAlone(t *testing.T) {
	t.Parallel()
	c := client{Options: Options{Server: far}}
	for a, want := range map[string]bool{"192.0.2.1": true, "10.0.0.1": true, "127.0.0.1": false, "169.254.169.254": false, "224.0.0.1": false, "255.255.255.255": false,
		"0.0.0.0": false, "2001:db8::1": false} {
		if c.traceable(netip.MustParseAddr(a)) != want {
			t.Errorf("%s is traced: %t", a, !want)
		}
	}
}

// TestOnlySilenceIsLoss: an error on this host says nothing of the path.
func TestOnlySilenceIsLoss(t *testing.T) {
	t.Parallel()
	var c client
	asked := 0
	s := c.size(1500, func(int) (bool, *hopError, error) {
		if asked++; asked > 2 {
			return false, nil, errors.New("no buffer space available")
		}
		return false, nil, nil
	})
	if s.Reason != "no buffer space available" || s.blackHole() || asked != 3 {
		t.Errorf("%+v, asked %d times", s, asked)
	}
}

// TestIncompleteEvidenceProvesNothing where silence would.
func TestIncompleteEvidenceProvesNothing(t *testing.T) {
	t.Parallel()
	e := Evidence{Server: far, UDP: Echo{Local: pod, Arrived: pod, Node: NodeFlow{State: FlowKept}}, TCP: Echo{Local: pod, Arrived: pod, Node: NodeFlow{State: FlowKept}}}
	if r := Judge(e); r.Verdict != Kept {
		t.Fatal(r)
	}
	e.Incomplete = "it was given up"
	if r := Judge(e); r.Verdict != Unknown {
		t.Error(r)
	}
}
