package workload

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestTraffic(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	a, b := n.run(1), n.run(2)
	for i := range a.Addresses {
		if from := talk(t, n.Host, a.Host, a.Addresses[i]); from != []any{node4, node6}[i] {
			t.Errorf("the node speaks to a workload from %s", from)
		}
		if from := talk(t, a.Host, b.Host, b.Addresses[i]); from != a.Addresses[i] {
			t.Errorf("a workload speaks to another from %s", from)
		}
	}
	talk(t, a.Host, n.Host, node4)
	talk(t, a.Host, n.Host, node6)
	held, err := n.driver.Held(t.Context())
	if err != nil || len(held) != 2 {
		t.Fatal(held, err)
	}
	for _, h := range held {
		if want := map[string]*pod{a.ContainerID: a, b.ContainerID: b}[h.ContainerID]; !reflect.DeepEqual(h.Workload, want.Workload) || h.Leaving {
			t.Errorf("held %+v, want %+v", h, want.Workload)
		}
	}
}

func TestLeave(t *testing.T) {
	t.Parallel()
	n := newNode(t, Options{})
	a, b := n.run(1), n.run(2)
	if err := n.driver.Leave(t.Context(), []string{a.Device(), "sly000000000000"}); err != nil {
		t.Fatal(err)
	}
	if out := in(t, n.Host, "ip", "route") + in(t, n.Host, "ip", "-6", "route") + in(t, n.Host, "ip", "neigh"); strings.Contains(out, a.Device()) {
		t.Errorf("what a link that is leaving has left:\n%s", out)
	}
	eventually(t, "the link is removed", func() bool { return len(n.held()) == 1 && n.held()[0] == b.Device() })
	if err := n.driver.Leave(t.Context(), []string{a.Device()}); err != nil {
		t.Error("leaving twice:", err)
	}
	if gone := n.told(); len(gone) != 1 || gone[0].ContainerID != a.ContainerID {
		t.Errorf("gone: %v", gone)
	}
	var exists *ExistsError
	if _, err := n.add(b); !errors.As(err, &exists) {
		t.Errorf("adding it twice: %v", err)
	}
	talk(t, n.Host, b.Host, b.Addresses[0])
	if _, err := n.add(a); err != nil {
		t.Error("adding what has left:", err)
	}
}
