package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
)

// routesShown bounds each list of routes that a person reads; -o json has all.
const routesShown = 10

func bgpCommand(g *global) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "bgp",
		Short: "Show the BGP sessions of this node, and the routes that go and come by them",
		Long: `Show with whom the agent of this node speaks BGP: each session, and if it is down, why; the blocks of this node that are
announced, to whom, and those that are not, and why; the routes that peers tell of, and which of these the node does not
have, and why. The agent speaks BGP where it is the pod network, and a BGPPeer or the mesh of a BGPConfiguration gives the
node a peer.

IN counts the routes that a peer tells of, ACCEPTED those that the node believes, and OUT those that the peer is told of. The exit
code is 1 if a session is down or BGP does not run as the node is asked to, and where no agent answers.`,
		Example: "  sallyport bgp\n  sallyport bgp -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			r, err := g.client().BGP(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = printBGP(human(cmd), r, time.Now())
			}
			if err == nil && !asAsked(r) {
				return errSilent
			}
			return err
		},
	}
	outputFlag(cmd, &output, "json")
	return cmd
}

// asAsked says whether BGP runs as the node is asked to.
func asAsked(r *agent.BGPResponse) bool {
	for i := range r.Sessions {
		if !r.Sessions[i].Up || r.Sessions[i].Fault != "" {
			return false
		}
	}
	return len(r.Problems) == 0 && (r.Running || r.ASN == 0)
}

func printBGP(w io.Writer, r *agent.BGPResponse, now time.Time) error {
	if !r.Running {
		fmt.Fprintln(w, saying("Node %s does not speak BGP: %s.", r.Node, strings.TrimSuffix(r.Reason, ".")))
	} else {
		fmt.Fprintln(w, saying("Node %s speaks BGP as AS %d, router ID %s, and listens at %s.", r.Node, r.ASN, r.RouterID, orNone(strings.Join(r.Listens, " and "))))
	}
	if err := printSessions(w, r.Sessions, now); err != nil {
		return err
	}
	if err := printAnnounced(w, r); err != nil {
		return err
	}
	if err := printLearned(w, r); err != nil {
		return err
	}
	if r.Strangers > 0 {
		say(w, "\n%d connections came from addresses that are no peer's, and were closed.\n", r.Strangers)
	}
	if r.Forwarded > 0 {
		say(w, "\n%d packets of BFD came from further away than a link, and were dropped.\n", r.Forwarded)
	}
	printAll(w, "This node does not speak BGP as it is asked to:", r.Problems)
	printAll(w, "Fields that Sallyport does not act on:", r.Ignored)
	return nil
}

func printAll(w io.Writer, heading string, list []string) {
	if len(list) > 0 {
		say(w, "\n%s\n", heading)
	}
	for _, item := range list {
		say(w, "  %s\n", item)
	}
}

// printSessions prints the sessions as a table.
func printSessions(w io.Writer, sessions []agent.BGPSession, now time.Time) error {
	if len(sessions) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PEER\tASKED BY\tAS\tSTATE\tSINCE\tIN\tACCEPTED\tOUT\tRESETS\tWHY")
	for i := range sessions {
		s := &sessions[i]
		by := "mesh"
		if s.BGPPeer != "" {
			by = "BGPPeer " + s.BGPPeer
		}
		peer := s.Peer.String()
		if s.PeerNode != "" {
			peer += " (" + s.PeerNode + ")"
		}
		state := map[bool]string{true: "up", false: "DOWN"}[s.Up]
		if !s.Up && s.State != "" {
			state += " (" + s.State + ")"
		}
		if s.BFD {
			state += ", BFD"
		}
		since := "-"
		if !s.Since.IsZero() {
			since = now.Sub(s.Since).Truncate(time.Second).String()
		}
		why := s.Why
		if s.Fault != "" && s.Up {
			why = "FAULT: " + s.Fault
		}
		say(t, "%s\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", peer, by, s.ASN, state, since, s.Received, s.Accepted, s.Told, s.Resets, cmp.Or(why, "-"))
	}
	return t.Flush()
}

// printAnnounced prints the blocks of the node, and to whom they are announced.
func printAnnounced(w io.Writer, r *agent.BGPResponse) error {
	if len(r.Announced)+len(r.Withheld) == 0 {
		if len(r.Sessions) > 0 {
			say(w, "\nThis node owns no block to announce.\n")
		}
		return nil
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BLOCK\tPOOL\tANNOUNCED\tCOMMUNITIES\tWHY")
	for i := range r.Announced[:min(len(r.Announced), routesShown)] {
		a := &r.Announced[i]
		to, why := toWhom(a, len(r.Sessions)), a.Why
		if len(a.Untold) > 0 {
			why = fmt.Sprintf("not to %s: %s", a.Untold[0].Peer, a.Untold[0].Why)
		}
		say(t, "%s\t%s\t%s\t%s\t%s\n", a.Prefix, a.Pool, to, cmp.Or(strings.Join(a.Communities, ","), "-"), why)
	}
	for i := range r.Withheld[:min(len(r.Withheld), routesShown)] {
		b := &r.Withheld[i]
		say(t, "%s\t%s\tNO\t-\t%s\n", b.Prefix, b.Pool, b.Why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	more(w, max(0, len(r.Announced)-routesShown)+max(0, len(r.Withheld)-routesShown))
	return nil
}

// toWhom says to how many peers a block is announced.
func toWhom(a *agent.BGPAnnouncement, peers int) string {
	switch told := len(a.Told); {
	case told == peers:
		return "to all peers"
	case told == 0:
		return "TO NO PEER"
	default:
		return fmt.Sprintf("to %d of %d peers", told, peers)
	}
}

// printLearned prints the routes that peers tell of.
func printLearned(w io.Writer, r *agent.BGPResponse) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Learned) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(t, "LEARNED\tNEXT HOPS")
		for _, l := range r.Learned[:min(len(r.Learned), routesShown)] {
			say(t, "%s\t%s\n", l.Prefix, addressList(l.Hops))
		}
		if err := t.Flush(); err != nil {
			return err
		}
		more(w, len(r.Learned)-routesShown)
	}
	if len(r.Refused) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "REFUSED\tFROM\tWHY")
	for _, f := range r.Refused {
		say(t, "%s\t%s\t%s\n", f.Prefix, addressOr(f.Peer), f.Why)
	}
	return t.Flush()
}

// more says how many of a list are left out.
func more(w io.Writer, n int) {
	if n > 0 {
		say(w, "and %d more: sallyport bgp -o json\n", n)
	}
}

func addressOr(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}
