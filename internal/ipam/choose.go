package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
)

// Pool is a pool, and whether it may give out addresses.
type Pool struct {
	*model.Pool
	// Why says why the pool gives out no address: the message of its condition Allocatable. Empty: it does.
	Why string
}

// Wish is for which kind of use, where and for whom addresses are wanted.
type Wish struct {
	Use             model.Uses // one of them
	Node            string
	NodeLabels      map[string]string
	Namespace       string // empty: none, as for a tunnel, and for workloads without Kubernetes
	NamespaceLabels map[string]string
	// Pools4 and Pools6 name pools of a family, by name or CIDR, in the order in which they are tried. Nil: all pools that do
	// not ask to be named.
	Pools4, Pools6 []string
	// Named says that very addresses are wanted, which satisfies pools that ask to be named.
	Named bool
}

// Refusal is a pool that does not serve, and why.
type Refusal struct {
	Pool string
	Why  string
}

func (r Refusal) String() string { return fmt.Sprintf("pool %s: %s", r.Pool, r.Why) }

// Choose is the pools of a family that may serve a wish, in the order in which they are tried, and why the others of
// the family do not. What names pools chooses among those that their selectors allow, and never adds one. Those that are named
// come in that order; others by how many of their selectors leave something out, and then by name.
func Choose(pools []Pool, v6 bool, w *Wish) (serve []*model.Pool, refused []Refusal) {
	known := map[string]bool{}
	for _, p := range pools {
		if p.CIDR.Addr().Is6() != v6 {
			continue
		}
		known[p.Name], known[p.CIDR.String()] = true, true
		if why := w.refuses(p); why != "" {
			refused = append(refused, Refusal{p.Name, why})
		} else {
			serve = append(serve, p.Pool)
		}
	}
	slices.SortFunc(serve, func(a, b *model.Pool) int {
		return cmp.Or(w.prefer(a, b), strings.Compare(a.Name, b.Name))
	})
	for _, name := range w.named(v6) {
		if text := canonical(name); !known[text] && isOf(text, v6) {
			refused = append(refused, Refusal{name, "no pool of this name or CIDR exists"})
		}
	}
	return serve, refused
}

// isOf says whether a name may mean a pool of a family: the name of one that does not exist may be of either.
func isOf(name string, v6 bool) bool {
	p, err := netip.ParsePrefix(name)
	return err != nil || p.Addr().Is6() == v6
}

// canonical is a name of a pool, or its CIDR in the form in which pools have it.
func canonical(name string) string {
	if p, err := netip.ParsePrefix(name); err == nil {
		return p.String()
	}
	return name
}

// named is the pools that are named for a family.
func (w *Wish) named(v6 bool) []string {
	if v6 {
		return w.Pools6
	}
	return w.Pools4
}

// rank is the place of a pool among those that are named.
func (w *Wish) rank(p *model.Pool) int {
	return slices.IndexFunc(w.named(p.CIDR.Addr().Is6()), func(name string) bool { return name == p.Name || canonical(name) == p.CIDR.String() })
}

// prefer says which of two pools comes first, while it has an address: 0 where neither does.
func (w *Wish) prefer(a, b *model.Pool) int {
	return cmp.Or(w.rank(a)-w.rank(b), wide(a)-wide(b))
}

// split takes those pools that come first off a list in order.
func (w *Wish) split(pools []*model.Pool) (first, rest []*model.Pool) {
	n := slices.IndexFunc(pools, func(p *model.Pool) bool { return w.prefer(pools[0], p) != 0 })
	if n < 0 {
		n = len(pools)
	}
	return pools[:n], pools[n:]
}

// wide is how many of a pool's selectors take all.
func wide(p *model.Pool) (n int) {
	for _, s := range []string{p.NodeSelector, p.NamespaceSelector} {
		if isAll(s) {
			n++
		}
	}
	return n
}

// refuses says why a pool does not serve, or "".
func (w *Wish) refuses(p Pool) string {
	named := w.rank(p.Pool) >= 0
	switch {
	case w.named(p.CIDR.Addr().Is6()) != nil && !named:
		return "is not among the pools that are named"
	case p.Why != "":
		return p.Why
	case p.AllowedUses&w.Use == 0:
		return "its allowedUses has no " + useName(w.Use)
	case p.ManualAssignment && !named && !w.Named:
		return "its assignmentMode is Manual, so that it must be named"
	}
	if why := unselected(p.NodeSelector, w.NodeLabels, "nodeSelector", "node "+w.Node); why != "" {
		return why
	}
	switch {
	case w.Use != model.UseWorkload:
		return ""
	case w.Namespace == "":
		return unselected(p.NamespaceSelector, nil, "namespaceSelector", "a workload that has no namespace")
	default:
		return unselected(p.NamespaceSelector, w.NamespaceLabels, "namespaceSelector", "namespace "+w.Namespace)
	}
}

func useName(u model.Uses) string {
	switch u {
	case model.UseWorkload:
		return "Workload"
	case model.UseTunnel:
		return "Tunnel"
	default:
		return "LoadBalancer"
	}
}

func isAll(s string) bool { return s == "" || s == "all()" }

// unselected says that a selector does not select what has these labels, or "". One that cannot be read selects nothing.
func unselected(text string, labels map[string]string, field, what string) string {
	if isAll(text) {
		return ""
	}
	s, err := selector.Parse(text)
	switch {
	case err != nil:
		return field + " is not a selector: " + err.Error()
	case s.Global() || !s.Matches(labels):
		return fmt.Sprintf("its %s does not select %s", field, what)
	}
	return ""
}
