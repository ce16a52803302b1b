package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// listings counts the requests that make the kernel go through its whole table.
type listings struct {
	nfnetlink.Socket
	n *int
}

func (s listings) Send(b []byte) error {
	if binary.NativeEndian.Uint16(b[4:]) == messageGet && binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_DUMP == unix.NLM_F_DUMP {
		*s.n++
	}
	return s.Socket.Send(b)
}

func listing(h *lab.Host, n *int) *Table {
	return &Table{dial: func() (nfnetlink.Socket, error) {
		s, err := nfnetlink.Dial(h.FD())
		return listings{s, n}, err
	}}
}

// TestApplyWalksOnce counts how often a change makes the kernel go through its table: not at all where no flow is
// tracked, once where flows end, and again only where the kernel cannot wait for the packets that are under way.
func TestApplyWalksOnce(t *testing.T) {
	t.Parallel()
	off, on := plan(false, model.FlowsMove), plan(true, model.FlowsMove)
	for _, tc := range []struct {
		name  string
		flows []entry
		grace error
		walks int
	}{
		{"no flows", nil, nil, 0},
		{"flows that no plan has a say in", others, nil, 1},
		{"flows that end", talking(false), nil, 1},
		{"flows that end, without a grace period", talking(false), unix.ENOSYS, 2},
		{"no flows, without a grace period", nil, unix.ENOSYS, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := labtest.NewHost(t, "node")
			walks, waits := 0, 0
			d := New(listing(h, &walks), slog.New(slog.DiscardHandler))
			d.grace = func() error { waits++; return tc.grace }
			labtest.Must(t, d.Apply(t.Context(), off))
			track(t, h, tc.flows...)
			walks, waits = 0, 0
			d.Stands(on, false)
			labtest.Must(t, d.Apply(t.Context(), on))
			if walks != tc.walks || waits != 1 {
				t.Errorf("%d walks after %d grace periods, want %d after 1", walks, waits, tc.walks)
			}
		})
	}
}

// TestPlacesWithoutUse restores, in the one walk of a change, the flows whose places are kept and which have not gone
// on since; where these are more than fit in memory, further walks restore the rest.
func TestPlacesWithoutUse(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{10: 1, lateMost + 1: 2} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			h := labtest.NewHost(t, "node")
			if n > most(t)/2 {
				t.Skip("kernel feature: a conntrack table for more flows")
			}
			walks := 0
			d := New(listing(h, &walks), slog.New(slog.DiscardHandler))
			apply := func(p *compile.Plan) {
				t.Helper()
				walks = 0
				d.Stands(p, false)
				labtest.Must(t, d.Apply(t.Context(), p))
			}
			off, on := plan(false, model.FlowsMove), plan(true, model.FlowsMove)
			apply(off)
			trackMany(t, h, n, func(i int, b []byte, seq uint32) []byte {
				return entry{protocol: compile.UDP, from: fmt.Sprintf("10.0.0.2:%d", 1024+i), to: "198.51.100.7:53"}.message(b, seq)
			})
			apply(on)
			if walks != 1 {
				t.Errorf("%d walks to translate, want 1", walks)
			}
			apply(off)
			places, own := 0, 0
			_, err := NewTable(h.FD()).Walk(t.Context(), func() Visit {
				places, own = 0, 0
				return func(f *Flow) Action {
					if f.keepsPlace() {
						places++
					} else if !f.Translated() {
						own++
					}
					return Leave
				}
			})
			labtest.Must(t, err)
			if walks != want || places != 0 || own != n {
				t.Errorf("%d walks left %d places and %d flows with their own address; want %d walks, no place and %d flows", walks, places, own, want, n)
			}
		})
	}
}

// TestGrace waits for the packets under way on this kernel.
func TestGrace(t *testing.T) {
	t.Parallel()
	if err := grace(); errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		t.Skipf("needs kernel with membarrier: %v", err)
	} else if err != nil {
		t.Error(err)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	h := labtest.NewHost(t, "node")
	table := NewTable(h.FD())
	for _, want := range []int{0, len(others)} {
		if n, err := table.Count(t.Context()); n != want || err != nil {
			t.Errorf("%d entries, %v; want %d", n, err, want)
		}
		if want == 0 {
			track(t, h, others...)
		}
	}
}
