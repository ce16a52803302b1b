package foreign

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

func TestMain(m *testing.M) { labtest.Main(m) }

// newHost makes a host with one interface, eth0.
func newHost(t *testing.T) *lab.Host {
	t.Helper()
	host, peer := labtest.NewHost(t, "host"), labtest.NewHost(t, "peer")
	labtest.Must(t, lab.Link(lab.Port{Host: host, Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}, lab.Port{Host: peer, Name: "eth0"}))
	return host
}

// run runs a command in a host.
func run(t *testing.T, h *lab.Host, name string, args ...string) error {
	t.Helper()
	err := h.Do(func() error {
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return nil
	})
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%v: make test installs it", err)
	}
	return err
}

// load appends rules, a line each, to the nat table by a program of iptables, or skips the test where the kernel
// has no such table.
func load(t *testing.T, h *lab.Host, command, rules string) {
	t.Helper()
	for i, line := range strings.Split(strings.TrimSpace(rules), "\n") {
		err := run(t, h, command, append([]string{"-w", "-t", "nat"}, strings.Fields(line)...)...)
		if i == 0 && missing(err) {
			t.Skipf("kernel feature missing: the nat table of %s: %v", command, err)
		}
		labtest.Must(t, err)
	}
}

// read reads the rules of others in a host.
func read(t *testing.T, h *lab.Host) (rs *diagnose.Ruleset) {
	t.Helper()
	labtest.Must(t, h.Do(func() (err error) {
		rs, err = Read(t.Context(), "ours")
		return err
	}))
	return rs
}

// render writes chains down, one line for each and for each rule.
func render(rs *diagnose.Ruleset) (lines []string) {
	for _, c := range rs.Chains {
		head := fmt.Sprintf("%s %s", c.Table, c.Name)
		if c.Base {
			head += fmt.Sprintf(" at %d for", c.Priority)
			if c.IPv4 {
				head += " IPv4"
			}
			if c.IPv6 {
				head += " IPv6"
			}
		}
		lines = append(lines, head)
		for _, r := range c.Rules {
			lines = append(lines, strings.TrimRight("  "+renderRule(&r), " "))
		}
	}
	return lines
}

func renderRule(r *diagnose.Rule) string {
	var parts []string
	for _, m := range r.Matches {
		parts = append(parts, renderMatch(&m))
	}
	a := map[diagnose.ActionKind]string{diagnose.ActionNone: "go on", diagnose.ActionEnd: "end", diagnose.ActionReturn: "return", diagnose.ActionJump: "jump",
		diagnose.ActionGoto: "goto", diagnose.ActionMark: fmt.Sprintf("mark &^%#x ^%#x", r.Action.Clear, r.Action.Set), diagnose.ActionTranslate: "TRANSLATE",
		diagnose.ActionUnknown: "unknown"}[r.Action.Kind]
	parts = append(parts, strings.TrimSpace(strings.Join(append([]string{a}, r.Action.Chains...), " ")))
	said := strings.TrimSpace(r.Text + " " + r.Action.Text)
	return strings.Join(parts, ", ") + " | " + said
}

func renderMatch(m *diagnose.Match) string {
	s := ""
	if m.Not {
		s = "not "
	}
	switch m.Kind {
	case diagnose.MatchUnknown:
		return s + "?"
	case diagnose.MatchNothing:
		return s + "nothing"
	case diagnose.MatchEverything:
		return s + "all"
	case diagnose.MatchSource:
		return s + "from " + renderRanges(m)
	case diagnose.MatchDestination:
		return s + "to " + renderRanges(m)
	case diagnose.MatchOut:
		return s + "by " + strings.Join(m.Names, " ")
	case diagnose.MatchProtocol:
		return s + "protocol " + strings.Trim(fmt.Sprint(m.Protocols), "[]")
	case diagnose.MatchMark:
		return s + fmt.Sprintf("mark %#x/%#x", m.Value, m.Mask)
	default:
		return s + "IPv4"
	}
}

func renderRanges(m *diagnose.Match) string {
	var parts []string
	for _, r := range m.Ranges {
		parts = append(parts, r.String())
	}
	return strings.Join(parts, " ")
}

// missing says whether a program found that the kernel lacks what it works on, which it says in one of these ways.
func missing(err error) bool {
	return err != nil && slices.ContainsFunc([]string{"does not exist", "not supported", "No such file", "Could not fetch rule set generation id"}, func(s string) bool {
		return strings.Contains(err.Error(), s)
	})
}
