package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// list is every flow of a host, in words, sorted, without those that keep a place.
func list(t testing.TB, h *lab.Host) []string {
	t.Helper()
	var out []string
	_, err := NewTable(h.FD()).Walk(t.Context(), func() Visit {
		out = nil
		return func(f *Flow) Action {
			if f.keepsPlace() {
				return Leave
			}
			out = append(out, fmt.Sprintf("%d %s>%s %s<%s %s", f.Protocol, f.Original.Source, f.Original.Destination, f.Reply.Destination, f.Reply.Source, f.State()))
			return Leave
		}
	})
	labtest.Must(t, err)
	slices.Sort(out)
	return out
}

func TestWalkReadsWhatTheKernelTracks(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	if got := list(t, h); len(got) != 0 {
		t.Fatalf("a new namespace tracks %q", got)
	}
	track(t, h,
		entry{protocol: compile.UDP, from: "10.0.0.2:1000", to: "10.96.0.10:53", peer: "198.51.100.7:5353", seen: "192.0.2.1:40000"},
		entry{protocol: compile.TCP, from: "10.0.0.2:1000", to: "198.51.100.7:80", answered: true, established: true},
		entry{protocol: compile.TCP, from: "[fd00::2]:1000", to: "[2001:db8::7]:80", seen: "[2001:db8::1]:1000"},
		entry{protocol: compile.ICMP, from: "10.0.0.2:77", to: "198.51.100.7:0", seen: "192.0.2.1:78"},
		entry{protocol: compile.ICMPv6, from: "[fd00::2]:77", to: "[2001:db8::7]:0", answered: true},
	)
	want := []string{
		"1 10.0.0.2:77>198.51.100.7:77 192.0.2.1:78<198.51.100.7:78 unanswered",
		"17 10.0.0.2:1000>10.96.0.10:53 192.0.2.1:40000<198.51.100.7:5353 unanswered",
		"58 [fd00::2]:77>[2001:db8::7]:77 [fd00::2]:77<[2001:db8::7]:77 answered",
		"6 10.0.0.2:1000>198.51.100.7:80 10.0.0.2:1000<198.51.100.7:80 established",
		"6 [fd00::2]:1000>[2001:db8::7]:80 [2001:db8::1]:1000<[2001:db8::7]:80 none",
	}
	if got := list(t, h); !slices.Equal(got, want) {
		t.Errorf("the kernel tracks\n%q, want\n%q", got, want)
	}
}

// TestWalkEndsExactlyOne ends one of two flows that differ in their zone alone, and makes sure that a flow
// which took the place of another one is not mistaken for it.
func TestWalkEndsExactlyOne(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	plain := entry{protocol: compile.UDP, from: "10.0.0.2:1000", to: "198.51.100.7:53"}
	zoned := plain
	zoned.zone = 7
	track(t, h, plain, zoned)
	table := NewTable(h.FD())
	end := func(choose Visit) int {
		w, err := table.Walk(t.Context(), func() Visit { return choose })
		n := w.Flows
		labtest.Must(t, err)
		return n
	}
	if n := end(func(f *Flow) Action { return translateIf(f.zone != nil) }); n != 1 || len(list(t, h)) != 1 {
		t.Fatalf("%d flows were ended, %q are left", n, list(t, h))
	}
	if n := end(func(f *Flow) Action { f.ID++; return Translate }); n != 0 || len(list(t, h)) != 1 {
		t.Fatalf("%d flows were ended by another one's number, %q are left", n, list(t, h))
	}
	if n := end(func(f *Flow) Action { return translateIf(!f.keepsPlace()) }); n != 1 || len(list(t, h)) != 0 {
		t.Fatalf("%d flows were ended, %q are left", n, list(t, h))
	}
}

// interrupting is a socket the first dumps of which are marked as interrupted, or lost.
type interrupting struct {
	nfnetlink.Socket
	left *int
	lost bool
}

func (s interrupting) Receive(b []byte) (int, error) {
	n, err := s.Socket.Receive(b)
	if err != nil || *s.left == 0 {
		return n, err
	}
	*s.left--
	if s.lost {
		return 0, unix.ENOBUFS
	}
	b[6] |= unix.NLM_F_DUMP_INTR // the lower byte of the first message's flags
	return n, nil
}

func TestWalkIsBegunAnewWhenInterrupted(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	track(t, h, entry{protocol: compile.UDP, from: "10.0.0.2:1000", to: "198.51.100.7:53"})
	for _, tc := range []struct {
		times int
		lost  bool
		begun int
		want  error
	}{
		{2, false, 2, nil}, // the flows and the end are a datagram each
		{2, true, 3, nil},
		{1 << 20, false, walks, nfnetlink.ErrInterrupted},
		{1 << 20, true, walks, unix.ENOBUFS},
	} {
		left := tc.times
		table := &Table{dial: func() (nfnetlink.Socket, error) {
			s, err := nfnetlink.Dial(h.FD())
			return interrupting{s, &left, tc.lost}, err
		}}
		begun, seen := 0, 0
		_, err := table.Walk(t.Context(), func() Visit {
			begun++
			seen = 0
			return func(*Flow) Action { seen++; return Leave }
		})
		if begun != tc.begun || !errors.Is(err, tc.want) || tc.want == nil && seen != 1 {
			t.Errorf("%+v: begun %d times, %d flows seen, %v", tc, begun, seen, err)
		}
	}
}

// FuzzParse feeds datagrams to the parser: it may not panic, and what it takes for a flow has addresses.
func FuzzParse(f *testing.F) {
	for _, e := range []entry{
		{protocol: compile.UDP, from: "10.0.0.2:1000", to: "10.96.0.10:53", peer: "198.51.100.7:5353", seen: "192.0.2.1:40000", zone: 3},
		{protocol: compile.TCP, from: "[fd00::2]:1000", to: "[2001:db8::7]:80", established: true},
		{protocol: compile.ICMP, from: "10.0.0.2:77", to: "198.51.100.7:0"},
	} {
		f.Add(e.message(nil, 1))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for m, err := range nfnetlink.Messages(data) {
			if err != nil {
				return
			}
			var flow Flow
			if flow.parse(m) != nil {
				continue
			}
			_ = flow.State()
			if tr := flow.Tracked(); !tr.Source.IsValid() || !tr.Seen.IsValid() || !tr.Peer.IsValid() {
				t.Errorf("a flow without addresses: %+v", flow)
			}
		}
	})
}

// TestPlaces ends flows whose peer may send first. What it sends belongs to an entry that nothing belongs to
// which the pod sends; and to the flow itself, when that is to keep its own address again.
func TestPlaces(t *testing.T) {
	t.Parallel()
	plain := entry{protocol: compile.UDP, from: "10.0.0.2:1000", to: "198.51.100.7:53", answered: true}
	shifted, translated, connected, service := plain, plain, plain, plain
	shifted.seen, translated.seen = "10.0.0.2:7", "192.0.2.1:4000"
	connected.protocol = compile.TCP
	service.to, service.peer = "10.96.0.10:53", "198.51.100.7:53"
	six := entry{protocol: compile.UDP, from: "[fd00::2]:1000", to: "[2001:db8::7]:53", seen: "[2001:db8::1]:9"}
	for _, tc := range []struct {
		name string
		how  Action
		flow entry
		want string // what is there instead
	}{
		{"to be translated", Translate, plain, "0.0.0.2:1000>198.51.100.7:53 10.0.0.2:1000<198.51.100.7:53"},
		{"to be translated, with another port", Translate, shifted, "0.0.0.2:7>198.51.100.7:53 10.0.0.2:7<198.51.100.7:53"},
		{"to be translated, TCP", Translate, connected, "0.0.0.2:1000>198.51.100.7:53 10.0.0.2:1000<198.51.100.7:53"},
		{"to be translated otherwise", Translate, translated, ""},
		{"to be translated, a service", Translate, service, ""},
		{"to be translated, an echo, whose answers open nothing", Translate, entry{protocol: compile.ICMP, from: "10.0.0.2:77", to: "198.51.100.7:0"}, ""},
		{"to keep its address", Restore, translated, "10.0.0.2:1000>198.51.100.7:53 10.0.0.2:1000<198.51.100.7:53"},
		{"to keep its address, IPv6", Restore, six, "[fd00::2]:1000>[2001:db8::7]:53 [fd00::2]:1000<[2001:db8::7]:53"},
		{"to keep its port", Restore, shifted, "10.0.0.2:1000>198.51.100.7:53 10.0.0.2:1000<198.51.100.7:53"},
		{"to make sure", End, plain, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := labtest.NewHost(t, "node")
			track(t, h, tc.flow)
			w, err := NewTable(h.FD()).Walk(t.Context(), func() Visit { return func(*Flow) Action { return tc.how } })
			ended := w.Flows
			labtest.Must(t, err)
			var got []string
			_, err = NewTable(h.FD()).Walk(t.Context(), func() Visit {
				return func(f *Flow) Action {
					got = append(got, fmt.Sprintf("%s>%s %s<%s", f.Original.Source, f.Original.Destination, f.Reply.Destination, f.Reply.Source))
					if f.keepsPlace() != (tc.how == Translate) {
						t.Errorf("taken to keep a place: %v", f.keepsPlace())
					}
					return Leave
				}
			})
			labtest.Must(t, err)
			if ended != 1 || strings.Join(got, ", ") != tc.want {
				t.Errorf("%d flows were ended, %q are there, want %q", ended, got, tc.want)
			}
		})
	}
}

// TestPlacesAreFreed turns translation on and off: entries that kept the places of flows make room for them,
// whether the pod has sent anything meanwhile or not.
func TestPlacesAreFreed(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	d := New(NewTable(h.FD()), slog.New(slog.DiscardHandler))
	off, on := plan(false, model.FlowsMove), plan(true, model.FlowsMove)
	apply := func(p *compile.Plan) {
		d.Stands(p, false)
		labtest.Must(t, d.Apply(t.Context(), p))
	}
	places := func() (n int) {
		_, err := NewTable(h.FD()).Walk(t.Context(), func() Visit {
			n = 0
			return func(f *Flow) Action {
				if f.keepsPlace() {
					n++
				}
				return Leave
			}
		})
		labtest.Must(t, err)
		return n
	}
	apply(off)
	track(t, h, talking(false)[0], entry{protocol: compile.UDP, from: "10.0.0.2:2000", to: "198.51.100.7:53"})
	apply(on)
	if n := places(); n != 2 {
		t.Fatalf("%d places are kept, want 2", n)
	}
	labtest.Must(t, NewTable(h.FD()).Cleanup(t.Context()))
	if n := places(); n != 0 {
		t.Fatalf("%d places are kept after cleaning up", n)
	}
	apply(off)
	apply(on)
	track(t, h, talking(true)[0]) // the other one has not gone on yet
	apply(off)
	if got := list(t, h); places() != 0 || len(got) != 2 || !strings.Contains(got[0], " 10.0.0.2:1000<") || !strings.Contains(got[1], " 10.0.0.2:2000<") {
		t.Errorf("%d places are kept, and there is %q", places(), got)
	}
}

// splitting is a socket that does something between the first message of a datagram and the others.
type splitting struct {
	nfnetlink.Socket
	between func()
}

func (s splitting) Send(b []byte) error {
	n := binary.NativeEndian.Uint32(b)
	if int(n) == len(b) {
		return s.Socket.Send(b)
	}
	if err := s.Socket.Send(b[:n]); err != nil {
		return err
	}
	s.between()
	return s.Socket.Send(b[n:])
}

// TestPlaceIsKeptAgainstAnAnswer lets an answer come between the end of a flow and the keeping of its
// place: the flow from outside that it opens makes room.
func TestPlaceIsKeptAgainstAnAnswer(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	track(t, h, entry{protocol: compile.UDP, from: "10.0.0.2:1000", to: "198.51.100.7:53", answered: true})
	answers := 0
	table := &Table{dial: func() (nfnetlink.Socket, error) {
		s, err := nfnetlink.Dial(h.FD())
		return splitting{s, func() {
			if answers++; answers <= 2 {
				track(t, h, entry{protocol: compile.UDP, from: "198.51.100.7:53", to: "10.0.0.2:1000"})
			}
		}}, err
	}}
	w, err := table.Walk(t.Context(), func() Visit { return func(*Flow) Action { return Translate } })
	labtest.Must(t, err)
	if got := list(t, h); w.Flows != 1 || answers != 3 || len(got) != 0 {
		t.Errorf("%d flows were ended in %d attempts, %q are left", w.Flows, answers, got)
	}
}

// TestPlaceThatIsAlwaysTaken says that there is more to do where each attempt to keep a place meets another answer.
func TestPlaceThatIsAlwaysTaken(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	track(t, h, entry{protocol: compile.UDP, from: "10.0.0.2:1000", to: "198.51.100.7:53", answered: true})
	table := &Table{dial: func() (nfnetlink.Socket, error) {
		s, err := nfnetlink.Dial(h.FD())
		return splitting{s, func() {
			track(t, h, entry{protocol: compile.UDP, from: "198.51.100.7:53", to: "10.0.0.2:1000"})
		}}, err
	}}
	w, err := table.Walk(t.Context(), func() Visit { return func(*Flow) Action { return Translate } })
	if err != nil || !w.More {
		t.Errorf("%+v, %v; want more to do", w, err)
	}
}
