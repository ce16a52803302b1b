package cli

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/agent"
)

// TestPrintBGP reads what a person is shown.
func TestPrintBGP(t *testing.T) {
	t.Parallel()
	now := time.Unix(100_000, 0)
	router, node := netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("fe80::1%eth0")
	r := &agent.BGPResponse{Node: "n", Running: true, ASN: 64512, RouterID: netip.MustParseAddr("192.0.2.1"), Listens: []string{"0.0.0.0:179", "[::]:179"},
		Sessions: []agent.BGPSession{{Peer: router, BGPPeer: "rack", ASN: 64513, Up: true, State: "Established", Since: now.Add(-time.Minute), Received: 6, Accepted: 2, Told: 1, BFD: true},
			{Peer: node, PeerNode: "m", ASN: 64512, State: "Active", Why: "no connection yet", Resets: 3}},
		Announced: []agent.BGPAnnouncement{{Prefix: netip.MustParsePrefix("10.1.0.0/26"), Pool: "p", Why: "it is ours", Communities: []string{"64512:7"}, Told: []netip.Addr{router},
			Untold: []agent.BGPUntold{{Peer: node, Why: "the session is down"}}}},
		Withheld: []agent.BGPWithheld{{Prefix: netip.MustParsePrefix("10.2.0.0/26"), Pool: "q", Why: "no export"}},
		Refused:  []agent.BGPRefusal{{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Peer: router, By: "policy", Why: "no BGPFilter accepts it"}, {Prefix: netip.MustParsePrefix("10.9.0.0/16"), By: "kernel", Why: "another"}},
		Problems: []string{"a problem"}, Ignored: []string{"a field"}, Strangers: 4, Forwarded: 5}
	for i := range 15 {
		r.Learned = append(r.Learned, agent.BGPRoute{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 20, byte(i)}), 24), Hops: []netip.Addr{router, node}})
	}
	var b bytes.Buffer
	if err := printBGP(&b, r, now); err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.FieldsFunc(b.String(), func(r rune) bool { return r == ' ' }), " ")
	for _, want := range []string{
		"Node n speaks BGP as AS 64512, router ID 192.0.2.1, and listens at 0.0.0.0:179 and [::]:179.\n",
		"\n192.0.2.254 BGPPeer rack 64513 up, BFD 1m0s 6 2 1 0 -\n",
		"\nfe80::1%eth0 (m) mesh 64512 DOWN (Active) - 0 0 0 3 no connection yet\n",
		"\n10.1.0.0/26 p to 1 of 2 peers 64512:7 not to fe80::1%eth0: the session is down\n",
		"\n10.2.0.0/26 q NO - no export\n",
		"\n10.20.9.0/24 192.0.2.254,fe80::1%eth0\nand 5 more: sallyport bgp -o json\n",
		"\n0.0.0.0/0 192.0.2.254 no BGPFilter accepts it\n", "\n10.9.0.0/16 - another\n",
		"4 connections came from addresses that are no peer's", "as it is asked to:\n a problem\n", "not act on:\n a field\n",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("nothing of %q in\n%s", want, words)
		}
	}
	b.Reset()
	if err := printBGP(&b, &agent.BGPResponse{Node: "n", Reason: "no BGPPeer"}, now); err != nil || b.String() != "Node n does not speak BGP: no BGPPeer.\n" {
		t.Errorf("without peers: %q, %v", b.String(), err)
	}
}

// TestBGPAsAsked says when the command fails.
func TestBGPAsAsked(t *testing.T) {
	t.Parallel()
	for i, c := range []struct {
		r    agent.BGPResponse
		want bool
	}{
		{agent.BGPResponse{}, true},
		{agent.BGPResponse{Problems: []string{"x"}}, false},
		{agent.BGPResponse{ASN: 1}, false},
		{agent.BGPResponse{ASN: 1, Running: true, Sessions: []agent.BGPSession{{Up: true}}}, true},
		{agent.BGPResponse{ASN: 1, Running: true, Sessions: []agent.BGPSession{{Up: true}, {}}}, false},
		{agent.BGPResponse{ASN: 1, Running: true, Sessions: []agent.BGPSession{{Up: true, Fault: "x"}}}, false},
	} {
		if got := asAsked(&c.r); got != c.want {
			t.Error(fmt.Sprint(i), got)
		}
	}
}
