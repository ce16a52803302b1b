package workload

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sallyport/sallyport/internal/cni"
)

// Workload is one interface of one container.
type Workload struct {
	Network     string // cni.NetworkHash of the network configuration's name
	ContainerID string
	Interface   string       // its name in the container
	UID         string       // of the pod; empty without Kubernetes
	Addresses   []netip.Addr // at least one
}

// Held is a workload's link as the kernel holds it.
type Held struct {
	Workload
	Link  string // the name of the device on the node
	Index int    // of that device
	// Leaving says that it has no routes any more, and is about to be removed.
	Leaving bool
}

// Device is the name of the workload's device on the node.
func (w *Workload) Device() string { return cni.LinkName(w.Network, w.ContainerID, w.Interface) }

func (w *Workload) String() string {
	return fmt.Sprintf("interface %s of container %s", w.Interface, w.ContainerID)
}

// state is how far a link is, as its alias says.
type state string

const (
	making  state = "making"  // its addresses have no routes yet, and no workload uses them: what an agent that was killed has left
	held    state = "held"    // a workload uses it
	leaving state = "leaving" // its addresses have no routes any more
)

// alias is what the alias of a link's device holds (IFLA_IFALIAS).
type alias struct {
	Workload
	state state
	mac   mac // of the container's side
}

type mac [6]byte

func (m mac) String() string {
	s := hex.EncodeToString(m[:])
	return s[0:2] + ":" + s[2:4] + ":" + s[4:6] + ":" + s[6:8] + ":" + s[8:10] + ":" + s[10:12]
}

const (
	// aliasVersion begins every alias of ours. Another meaning of what follows needs another version.
	aliasVersion = "sly1"
	// aliasMost is how long an alias may be, in bytes: IFALIASZ of linux/if.h less the zero at its end.
	aliasMost = 255
	// aliasFields are the fields of an alias, which spaces separate.
	aliasFields = 8
	// none stands for an empty field.
	none = "-"
)

// text is the alias as the kernel keeps it. The error says what about the workload cannot be kept.
func (a *alias) text() (string, error) {
	if err := a.check(); err != nil {
		return "", err
	}
	s := a.format()
	if len(s) > aliasMost {
		return "", fmt.Errorf("%s: what the alias of its device must hold is %d bytes long, and the kernel takes %d: "+
			"give it fewer addresses, or a shorter container id", &a.Workload, len(s), aliasMost)
	}
	return s, nil
}

func (a *alias) format() string {
	uid := a.UID
	if uid == "" {
		uid = none
	}
	addresses := make([]string, len(a.Addresses))
	for i, addr := range a.Addresses {
		addresses[i] = addr.String()
	}
	return strings.Join([]string{aliasVersion, string(a.state), a.Network, a.ContainerID, a.Interface, uid,
		hex.EncodeToString(a.mac[:]), strings.Join(addresses, ",")}, " ")
}

// check refuses what would not be read back as it was written.
func (w *Workload) check() error {
	for _, f := range []struct{ name, value string }{{"network", w.Network}, {"container id", w.ContainerID}, {"interface", w.Interface}} {
		if !word(f.value) || f.value == none {
			return fmt.Errorf("%s %q: it must be printable ASCII without spaces", f.name, f.value)
		}
	}
	if w.UID != "" && (!word(w.UID) || w.UID == none) {
		return fmt.Errorf("pod UID %q: it must be printable ASCII without spaces", w.UID)
	}
	// What the kernel asks of names (dev_valid_name of net/core/dev.c).
	if i := w.Interface; len(i) > 15 || i == "." || i == ".." || strings.ContainsAny(i, "/:") {
		return fmt.Errorf("interface %q: the kernel takes names of at most 15 bytes without \"/\" and \":\"", i)
	}
	return checkAddresses(w.Addresses)
}

func checkAddresses(list []netip.Addr) error {
	if len(list) == 0 {
		return errors.New("no address")
	}
	seen := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		switch {
		case !a.IsValid() || a.Zone() != "" || a.Is4In6() || !a.IsGlobalUnicast():
			return fmt.Errorf("address %s: it must be a unicast address without zone, and not link-local", a)
		case seen[a]:
			return fmt.Errorf("address %s: it is there twice", a)
		}
		seen[a] = true
	}
	return nil
}

// word says whether a text is one of printable ASCII without spaces.
func word(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// parseAlias reads an alias of ours. Any other text, also one that means the same as one of ours, is none.
func parseAlias(s string) (*alias, error) {
	fields := strings.Split(s, " ")
	if len(s) > aliasMost || len(fields) != aliasFields || fields[0] != aliasVersion {
		return nil, errors.New("not an alias of ours")
	}
	a := &alias{state: state(fields[1]), Workload: Workload{Network: fields[2], ContainerID: fields[3], Interface: fields[4], UID: fields[5]}}
	if a.state != making && a.state != held && a.state != leaving {
		return nil, fmt.Errorf("state %q", a.state)
	}
	if a.UID == none {
		a.UID = ""
	}
	raw, err := hex.DecodeString(fields[6])
	if err != nil || len(raw) != len(a.mac) {
		return nil, fmt.Errorf("MAC address %q", fields[6])
	}
	copy(a.mac[:], raw)
	for text := range strings.SplitSeq(fields[7], ",") {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
		a.Addresses = append(a.Addresses, addr)
	}
	if err := a.check(); err != nil {
		return nil, err
	}
	if a.format() != s {
		return nil, errors.New("not as this agent writes it")
	}
	return a, nil
}
