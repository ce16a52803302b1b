package workload

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// neighbour makes a host in the subnet of a node's uplink.
func (n *node) neighbour(name string, addresses ...string) *lab.Host {
	n.Helper()
	h := labtest.NewHost(n, name)
	var list []netip.Prefix
	for _, a := range addresses {
		list = append(list, netip.MustParsePrefix(a))
	}
	port := "to-" + name
	labtest.Must(n, lab.Link(lab.Port{Host: n.Host, Name: port}, lab.Port{Host: h, Name: "eth0", Addresses: list}))
	in(n.TB, n.Host, "ip", "link", "set", port, "master", "uplink")
	in(n.TB, h, "ip", "route", "add", "default", "via", node4.String())
	return h
}

// say sends a word in a datagram.
func say(t testing.TB, from *lab.Host, to, word string) {
	t.Helper()
	labtest.Must(t, from.Do(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(word))
		return err
	}))
}

// listen hands over the words of the datagrams to an address.
func listen(t testing.TB, h *lab.Host, address string) <-chan string {
	t.Helper()
	c, err := h.ListenPacket("udp", address)
	labtest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	words := make(chan string, 100)
	go func() {
		b := make([]byte, 100)
		for {
			size, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			words <- string(b[:size])
		}
	}()
	return words
}

// hears checks that the next word is the one.
func hears(t testing.TB, words <-chan string, want string) {
	t.Helper()
	select {
	case got := <-words:
		if got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("never heard %q", want)
	}
}

// injectedNow waits until as many packets of the overlay were dropped.
func (n *node) injectedNow(want uint64) {
	n.Helper()
	eventually(n.TB, "it is dropped and counted", func() bool {
		drops, err := n.driver.Drops(n.Context())
		return err == nil && drops.Injected == want
	})
}

func TestOverlayIsTakenFromNodesAlone(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	p := plan()
	p.VXLAN = true
	n.apply(p)
	labtest.Must(t, n.AddAddress("uplink", netip.MustParsePrefix("192.0.2.11/24")), n.AddAddress("uplink", netip.MustParsePrefix("2001:db8::11/64")))
	peer := n.neighbour("peer", peer4+"/24", peer6+"/64")
	stranger := n.neighbour("stranger", "192.0.2.9/24", "2001:db8::9/64")
	heard := listen(t, n.Host, "[::]:4789")
	other := listen(t, n.Host, "[::]:53")
	dropped := uint64(0)
	for _, to := range []struct{ own, second string }{{node4.String(), "192.0.2.11"}, {"[" + node6.String() + "]", "[2001:db8::11]"}} {
		say(t, stranger, to.own+":4789", "from a stranger")
		say(t, peer, to.second+":4789", "to another address")
		dropped += 2
		n.injectedNow(dropped)
		say(t, peer, to.own+":4789", "from a node")
		hears(t, heard, "from a node")
		say(t, stranger, to.own+":53", "something else")
		hears(t, other, "something else")
	}
	p.Nodes = p.Nodes[:1] // of IPv4, this node itself
	n.apply(p)
	say(t, peer, node4.String()+":4789", "from a node of once")
	n.injectedNow(dropped + 1)
	p.VXLAN = false
	n.apply(p)
	say(t, stranger, node4.String()+":4789", "from a stranger")
	hears(t, heard, "from a stranger") // it is not for an overlay of ours
}

// TestOverlayByDetour sends to a service whose endpoint is the overlay of a node, by a node that translates the source to its
// own.
func TestOverlayByDetour(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	peer := n.neighbour("peer", peer4+"/24", peer6+"/64")
	pod := n.run(1, own4, own6)
	in(t, n.Host, "nft", strings.Join([]string{
		"add table inet services", "add chain inet services to { type nat hook prerouting priority dstnat; }", "add chain inet services from { type nat hook postrouting priority srcnat; }",
		"add rule inet services from ip daddr " + peer4 + " masquerade", "add rule inet services from ip6 daddr " + peer6 + " masquerade",
		"add rule inet services to ip daddr 203.0.113.9 udp dport 1 dnat ip to " + peer4 + ":4789", "add rule inet services to ip daddr 203.0.113.9 udp dport 2 dnat ip to " + peer4 + ":53",
		"add rule inet services to ip6 daddr 2001:db8:5::9 udp dport 1 dnat ip6 to [" + peer6 + "]:4789", "add rule inet services to ip6 daddr 2001:db8:5::9 udp dport 2 dnat ip6 to [" + peer6 + "]:53",
	}, "; "))
	in(t, n.Host, "ip", "-6", "route", "add", "2001:db8:5::/64", "via", peer6)
	overlay, other := listen(t, peer, "[::]:4789"), listen(t, peer, "[::]:53")
	in(t, n.Host, "ip", "route", "add", "203.0.113.0/24", "via", peer4)
	for i, service := range []string{"203.0.113.9", "[2001:db8:5::9]"} {
		say(t, pod.Host, service+":1", "by a detour")
		n.injectedNow(uint64(i + 1))
		say(t, pod.Host, service+":2", "to another port")
		hears(t, other, "to another port")
	}
	say(t, n.Host, peer4+":4789", "from the node")
	hears(t, overlay, "from the node")
	say(t, n.Host, "["+peer6+"]:4789", "from the node")
	hears(t, overlay, "from the node")
}

// TestOverlayKeepsItsSource has a workload send to the overlay of a node of which its own has not heard, and which would take packets from the
// address to which that translates.
func TestOverlayKeepsItsSource(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	stranger := n.neighbour("stranger", "192.0.2.9/24", "2001:db8::9/64")
	in(t, stranger, "ip", "-6", "route", "add", "default", "via", node6.String())
	pod := n.run(1, own4, own6)
	in(t, n.Host, "nft", "add table inet nat; add chain inet nat from { type nat hook postrouting priority srcnat - 1; }; add rule inet nat from meta oifname uplink masquerade")
	in(t, stranger, "nft", strings.Join([]string{
		"add table inet overlay", "add chain inet overlay input { type filter hook input priority filter; }",
		"add rule inet overlay input ip saddr " + node4.String() + " udp dport 4789 drop", "add rule inet overlay input ip6 saddr " + node6.String() + " udp dport 4789 drop",
		"add rule inet overlay input ip saddr " + own4 + " udp dport 53 drop", "add rule inet overlay input ip6 saddr " + own6 + " udp dport 53 drop",
	}, "; "))
	overlay, other := listen(t, stranger, "[::]:4789"), listen(t, stranger, "[::]:53")
	for _, to := range []string{"192.0.2.9", "[2001:db8::9]"} {
		say(t, pod.Host, to+":4789", "not translated")
		hears(t, overlay, "not translated")
		say(t, pod.Host, to+":53", "translated")
		hears(t, other, "translated")
	}
}

// TestOverlayByService sends to services of this node whose endpoint is the overlay of this node, or of a third one: a workload of
// another node does so, whose node translates the source to its own.
func TestOverlayByService(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	p := plan()
	p.VXLAN = true
	p.Nodes = append(p.Nodes, netip.MustParseAddr("198.51.100.3"), netip.MustParseAddr("2001:db8:6::3"))
	n.apply(p)
	peer := n.neighbour("peer", peer4+"/24", peer6+"/64")
	labtest.Must(t, n.Bridge("second", []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("2001:db8:6::1/64")}))
	in(t, n.Host, "nft", strings.Join([]string{
		"add table inet services", "add chain inet services to { type nat hook prerouting priority dstnat; }",
		"add rule inet services to ip daddr " + node4.String() + " udp dport 30000 dnat ip to " + node4.String() + ":4789",
		"add rule inet services to ip6 daddr " + node6.String() + " udp dport 30000 dnat ip6 to [" + node6.String() + "]:4789",
		"add rule inet services to ip daddr " + node4.String() + " udp dport 30001 dnat ip to 198.51.100.3:4789",
		"add rule inet services to ip6 daddr " + node6.String() + " udp dport 30001 dnat ip6 to [2001:db8:6::3]:4789",
	}, "; "))
	heard := listen(t, n.Host, "[::]:4789")
	for i, own := range []string{node4.String(), "[" + node6.String() + "]"} {
		say(t, peer, own+":30000", "by a service")
		n.injectedNow(uint64(2*i + 1))
		say(t, peer, own+":30001", "by a service of a third node")
		n.injectedNow(uint64(2*i + 2))
		say(t, peer, own+":4789", "from a node")
		hears(t, heard, "from a node")
	}
}
