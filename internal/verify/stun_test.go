package verify

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"testing"
)

// TestSTUN compares with the vectors of RFC 5769, section 2.2 and 2.3, as far as they hold what is used: others' attributes are
// passed over.
func TestSTUN(t *testing.T) {
	t.Parallel()
	for want, text := range map[string]string{
		"192.0.2.1:32853": "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643" +
			"000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96",
		"[2001:db8:1234:5678:11:2233:4455:6677]:32853": "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9" +
			"00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		m, err := decode(b)
		if err != nil || m.mapped != netip.MustParseAddrPort(want) || m.kind != bindingSuccess {
			t.Errorf("%+v, %v; want %s", m, err, want)
		}
	}
}

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:7"), netip.MustParseAddrPort("[2001:db8::1]:65535")
	e := hopError{ttl: 3, kind: errorTooBig, mtu: 1400, by: v4.Addr(), to: v6}
	for _, m := range []message{
		{kind: bindingRequest, id: transaction{1}, token: token{2}, cookie: cookie{3}, ttl: 4, size: 1500, hasReport: true, from: 6, report: []byte{}, query: token{5}, padding: 8},
		{kind: bindingSuccess, mapped: v4, ours: 1, hasReport: true, from: 1, report: e.encode(nil), seen: &seen{tokenSeen, 1, 2, v6}, padding: -1},
		{kind: bindingSuccess, mapped: v6, seen: &seen{state: tokenUnseen}, padding: 0},
	} {
		b := m.encode(nil)
		got, err := decode(b)
		clear(b) // as the next datagram overwrites it
		if err != nil || !reflect.DeepEqual(*got, m) {
			t.Errorf("%+v, %v; want %+v", got, err, m)
		}
	}
	if got := decodeReport(e.encode(nil)); len(got) != 1 || got[0] != e {
		t.Errorf("%+v, want %+v", got, e)
	}
	for _, n := range []int{0, 20, 64, 100, 1471, 1472, 1473} {
		m := message{kind: bindingRequest, token: token{1}}
		if b := m.padTo(n); len(b) != max(n, 40) {
			t.Errorf("padded to %d bytes: %d", n, len(b))
		}
	}
}

func FuzzDecode(f *testing.F) {
	m := message{kind: bindingRequest, token: token{2}, cookie: cookie{3}, ttl: 4, size: 1500, hasReport: true, query: token{5}, padding: 8}
	f.Add(m.encode(nil))
	m = message{kind: bindingSuccess, mapped: netip.MustParseAddrPort("192.0.2.1:7"), ours: 1, seen: &seen{}, padding: -1}
	f.Add(m.encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(m.encode(nil))
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if !bytes.Equal(again.encode(nil), m.encode(nil)) {
			t.Errorf("%x: %+v, then %+v", b, m, again)
		}
		decodeReport(m.report)
	})
}
