package route

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/rtnetlink"
)

func TestWatchTellsWhatOthersChange(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeAlways)
	a := c.nodes[0]
	labtest.Must(t, c.apply(0))
	ctx, cancel := context.WithCancel(t.Context())
	told, done := make(chan struct{}, 1000), make(chan error, 1)
	go func() { done <- a.driver.Watch(ctx, func() { told <- struct{}{} }) }()
	wait := func(why string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(5 * time.Second):
			t.Fatalf("not told of it: %s", why)
		}
	}
	wait("the beginning")
	for _, undo := range []string{"route del 10.1.0.128/26", "-6 route del fd00::3:0/112",
		"neigh del 10.1.0.68 dev sallyport.v4", "addr del 10.1.0.4/32 dev sallyport.v4", "-6 route del fd00::2:0/112", "link set sallyport.v4 mtu 1300", "link del sallyport.v6", "link set eth0 down"} {
		for len(told) > 0 {
			<-told
		}
		a.ip(t, strings.Fields(undo)...)
		wait(undo)
	}
	for _, setting := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		for len(told) > 0 {
			<-told
		}
		labtest.Must(t, a.Sysctl(setting, "0"))
		wait(setting)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWatchLeavesOutWhatIsNothingToIt hands a watcher what the kernel tells up to a mark, the name of a link that goes.
func TestWatchLeavesOutWhatIsNothingToIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeAlways)
	a := c.nodes[0]
	labtest.Must(t, c.apply(0))
	a.ip(t, "link", "add", "mark", "type", "bridge")
	w := a.driver.watcher()
	var mattered []string
	began, done := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		done <- rtnetlink.Subscribe(ctx, a.FD(), groups(), rtnetlink.Unheard{}, func() { close(began) }, func(m nfnetlink.Message) {
			var l rtnetlink.LinkMessage
			if m.Kind == unix.RTM_NEWLINK || m.Kind == unix.RTM_DELLINK {
				l, _ = rtnetlink.ParseLink(m)
			}
			if m.Kind == unix.RTM_DELLINK && l.Name == "mark" {
				cancel()
			} else if w.matters(m) {
				mattered = append(mattered, fmt.Sprintf("kind %d, link %q", m.Kind, l.Name))
			}
		})
	}()
	<-began
	a.ip(t, "link", "set", "eth0", "mtu", "1499") // the first word about a link matters, since it may have been down
	a.ip(t, "link", "set", "eth0", "mtu", "1500")
	a.ip(t, "link", "set", "sly0123456789ab", "down")
	a.ip(t, "link", "set", "sly0123456789ab", "up")
	labtest.Must(t, a.Sysctl("ipv4/conf/sly0123456789ab/forwarding", "0"))
	a.ip(t, "route", "replace", podOf(0, false).String(), "dev", "sly0123456789ab", "proto", "115")
	a.ip(t, "route", "add", "203.0.113.0/24", "via", "192.0.2.254")
	a.ip(t, "neigh", "add", "192.0.2.77", "lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "permanent")
	a.ip(t, "neigh", "del", "192.0.2.77", "dev", "eth0")
	changed := *c.snapshot
	changed.Blocks = slices.Delete(slices.Clone(c.snapshot.Blocks), 1, 2)
	c.snapshot = &changed
	labtest.Must(t, c.apply(0)) // what the driver does itself
	a.ip(t, "link", "del", "mark")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// The kernel does not say who removed the forwarding entry of the node that has no block any more.
	own := fmt.Sprintf("kind %d, link \"\"", unix.RTM_DELNEIGH)
	mattered = slices.DeleteFunc(mattered, func(s string) bool { return s == own })
	if want := []string{fmt.Sprintf("kind %d, link \"eth0\"", unix.RTM_NEWLINK)}; !slices.Equal(mattered, want) {
		t.Errorf("what mattered was %q, want %q", mattered, want)
	}
}
