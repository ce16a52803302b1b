package verify

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func serve(t *testing.T, allow ...netip.Prefix) netip.AddrPort {
	t.Helper()
	s := newServer(t, allow...)
	s.now = func() time.Time { return start }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addr()
}

// An answer that is due may take this long, and for one that must not come a test waits so long.
const due, silent = 10 * time.Second, 20 * time.Millisecond

// exchangeAll sends a request so often, and counts the answers, of which some are due.
func exchangeAll(t *testing.T, network string, to netip.AddrPort, m message, n, times, want int) (answers int) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range times {
		if _, err := c.Write(m.padTo(n)); err != nil {
			break
		}
	}
	b := make([]byte, maxMessage)
	for answers < times {
		wait := due
		if answers >= want {
			wait = silent
		}
		_ = c.SetReadDeadline(time.Now().Add(wait))
		if network == "tcp" {
			_, err = readMessage(c)
		} else {
			_, err = c.Read(b)
		}
		if err != nil {
			break
		}
		answers++
	}
	return answers
}

func TestServer(t *testing.T) {
	t.Parallel()
	usual := message{kind: bindingRequest, token: token{1}}
	all, none := netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("192.0.2.0/24")
	for _, tc := range []struct {
		what, network string
		m             message
		n, times      int
		allow         netip.Prefix
		want          int
	}{
		{"a request", "udp", usual, requestLen, 1, all, 1},
		{"by TCP", "tcp", usual, requestLen, 2, all, 2},
		{"more than ten", "udp", usual, requestLen, 30, all, 10},
		{"more than ten by TCP", "tcp", usual, requestLen, 30, all, 10},
		{"not allowed", "udp", usual, requestLen, 3, none, 0},
		{"not allowed by TCP", "tcp", usual, requestLen, 3, none, 0},
		{"a third party's client", "udp", message{kind: bindingRequest}, 64, 1, all, 1},
		{"one that is shorter than its answer", "udp", message{kind: bindingRequest}, 20, 1, all, 0},
		{"an answer", "udp", message{kind: bindingSuccess, token: token{1}}, requestLen, 1, all, 0},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			if got := exchangeAll(t, tc.network, serve(t, tc.allow), tc.m, tc.n, tc.times, tc.want); got != tc.want {
				t.Errorf("%d answers, want %d", got, tc.want)
			}
		})
	}
}

// TestParseICMP has errors as routers send them, with the least that they quote.
func TestParseICMP(t *testing.T) {
	t.Parallel()
	v4 := []byte{11, 0, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 1, unix.IPPROTO_UDP, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1, 0, 5, 0, 6, 0, 72, 0, 0}
	e, ok := parseICMP(v4, false)
	if want := netip.MustParseAddrPort("192.0.2.1:5"); !ok || e.kind != errorExpired || e.from != want || e.to.Port() != 6 || e.length != 72 {
		t.Errorf("%+v, %v", e, ok)
	}
	big := append([]byte{2, 0, 0, 0, 0, 0, 5, 0x78}, make([]byte, 48)...)
	big[8], big[14], big[15+8], big[47] = 0x60, unix.IPPROTO_TCP, 1, 2
	e, ok = parseICMP(big, true)
	if !ok || e.kind != errorTooBig || e.mtu != 1400 || e.protocol != unix.IPPROTO_TCP {
		t.Errorf("%+v, %v", e, ok)
	}
	for _, b := range [][]byte{nil, v4[:20], v4[:30], {3, 3, 0, 0, 0, 0, 0, 0}} {
		if e, ok := parseICMP(b, false); ok {
			t.Errorf("%x: %+v", b, e)
		}
	}
	if b := echoRequest(false, 1, 2); binary.BigEndian.Uint16(b[2:]) != ^uint16(0x0800+1+2) {
		t.Errorf("%x", b)
	}
}

func FuzzParseICMP(f *testing.F) {
	f.Add([]byte{11, 0, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 1, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1, 0, 5, 0, 6, 0, 72, 0, 0}, false)
	f.Fuzz(func(_ *testing.T, b []byte, v6 bool) {
		parseICMP(b, v6)
		_, _ = parseError(b)
	})
}

// TestOneSourceDoesNotTakeAllConnections opens more connections than one may have, and counts those that stay open.
func TestOneSourceDoesNotTakeAllConnections(t *testing.T) {
	t.Parallel()
	at := serve(t)
	closed := make(chan struct{}, streamsOfOne+4)
	for range streamsOfOne + 4 {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			_, _ = c.Read(make([]byte, 1))
			closed <- struct{}{}
		}()
	}
	for range 4 {
		<-closed
	}
	select {
	case <-closed:
		t.Error("more were closed than are too many")
	case <-time.After(silent):
	}
}
