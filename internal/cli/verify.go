package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/verify"
)

// verifyPort is the port of STUN (RFC 8489, section 18.6).
const verifyPort = "3478"

func verifyCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Find out from outside whether an address is kept all the way",
		Long: `Find out whether connections of a pod, or of the node, keep their address all the way to a host outside, and where it
is translated if they do not. "verify serve" runs on the host outside, "verify from" on the node.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(verifyServeCommand(), verifyFromCommand(g))
	return cmd
}

func verifyServeCommand() *cobra.Command {
	var listen string
	var allow []string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer verify from, on a host outside",
		Long: `Answer "sallyport verify from" of nodes, by UDP and TCP. Run it on a host outside, whose own address is not translated
on the way to the nodes.

The server speaks STUN (RFC 8489), needs no configuration and keeps nothing for longer than two minutes. It is made to stand on
the internet: it never sends more bytes to an address than came from it, sends probes only to an address that has returned its
cookie, takes ten requests a second from an IPv4 address or an IPv6 /64, and gives up root once it listens. Requests shorter than
their answer, as those of most other STUN clients are, get none.`,
		Example: "  sallyport verify serve\n  sallyport verify serve --listen 198.51.100.10:3478 --allow 203.0.113.0/24 --allow 2001:db8::/32",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			at, err := listenAt(listen)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("allow") && len(allow) == 0 {
				return errors.New("--allow: is empty, which would allow all sources; name a range, or leave the flag away")
			}
			var allowed []netip.Prefix
			for _, s := range allow {
				p, err := netip.ParsePrefix(s)
				if err != nil {
					return fmt.Errorf("--allow: %q is not a range such as 203.0.113.0/24 or 2001:db8::/32", s)
				}
				allowed = append(allowed, p.Masked())
			}
			return serveVerify(cmd.Context(), cmd.ErrOrStderr(), at, allowed)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", ":"+verifyPort, "address and port to listen on; without an address, on all of both families")
	cmd.Flags().StringSliceVar(&allow, "allow", nil, "answer sources in this range alone; may be given several times (default: all)")
	return cmd
}

// listenAt reads an address, which may be absent, with a port.
func listenAt(s string) (at netip.AddrPort, err error) {
	host, port, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(port, 10, 16)
	var a netip.Addr
	if err == nil && host != "" {
		a, err = netip.ParseAddr(host)
	}
	if err != nil || bad != nil {
		return at, fmt.Errorf("--listen: %q is not an address with a port, such as 198.51.100.10:3478, [2001:db8::10]:3478 or :3478", s)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

func serveVerify(ctx context.Context, errs io.Writer, at netip.AddrPort, allow []netip.Prefix) error {
	log := slog.New(slog.NewTextHandler(errs, nil))
	s, err := verify.Listen(ctx, at, allow, log)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := verify.DropPrivileges(); err != nil {
		return err
	}
	log.Info("answering", "at", s.String())
	return s.Serve(ctx)
}

func verifyFromCommand(g *global) *cobra.Command {
	var netns, pod, output string
	cmd := &cobra.Command{
		Use:   "from HOST:PORT",
		Short: "Say whether the address is kept all the way to HOST, and where it is not",
		Long: `Say with which address and port a flow from here arrives at HOST, where "sallyport verify serve" runs, by UDP and by TCP;
where its source is translated, if it is; and whether packets up to the MTU of the interface pass in both directions. Without
--netns and --pod, the flow is the node's own. It needs root, on the node. PORT may be left out: 3478.

Each line names what was seen: this node's conntrack entry of the flow, the address that arrived, which ICMP errors came for probes,
and what the server says of requests that had no answer. Where routers are silent, or traces do not agree, the place of a
translation is unknown.

HOST may run a third-party STUN server. It tells which address arrived, and no more: from it come no traces, and it cannot be
asked whether a request arrived.

The exit code is 0 if the address and port are kept, 2 if they are not, if no packet came through, or if packets vanish for their
size, and 3 if the verdict is unknown.`,
		Example: "  sudo sallyport verify from --pod default/web 198.51.100.10:3478\n  sudo sallyport verify from --netns /proc/4711/ns/net '[2001:db8::10]:3478' -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			r, err := verifyFrom(cmd.Context(), g, args[0], netns, pod)
			if err != nil {
				return err
			}
			if output == "json" {
				if err := printJSON(cmd.OutOrStdout(), r); err != nil {
					return err
				}
			} else {
				printReport(human(cmd), r)
			}
			return verifyResult(r)
		},
	}
	cmd.Flags().StringVar(&netns, "netns", "", "send from this network namespace: a name in /run/netns, or a path")
	cmd.Flags().StringVar(&pod, "pod", "", "send from this pod of this node, NAMESPACE/NAME")
	cmd.MarkFlagsMutuallyExclusive("netns", "pod")
	must(cmd.MarkFlagFilename("netns"))
	outputFlag(cmd, &output, "json")
	return cmd
}

// verifyResult is how the command ends.
func verifyResult(r verify.Report) error {
	switch r.Verdict {
	case verify.Kept:
		return nil
	case verify.Unknown:
		return unconfirmedError{errors.New("the verdict is unknown")}
	default:
		return errDiffers
	}
}

func verifyFrom(ctx context.Context, g *global, host, netns, pod string) (r verify.Report, err error) {
	o := verify.Options{Flows: nodeFlows}
	if o.Server, err = verifyServer(ctx, host); err != nil {
		return r, err
	}
	switch {
	case pod != "":
		address, err := addressOfPod(ctx, g, pod, o.Server.Addr().String())
		if err != nil {
			return r, err
		}
		o.Namespace, err = verify.NamespaceOf(netip.MustParseAddr(address))
		if err != nil {
			return r, fmt.Errorf("--pod %s: %w", pod, err)
		}
	case netns != "":
		if o.Namespace, err = verify.OpenNamespace(netns); err != nil {
			return r, fmt.Errorf("--netns: %w", err)
		}
	}
	if o.Namespace != nil {
		defer o.Namespace.Close()
	}
	e, err := verify.Gather(ctx, o)
	if err != nil {
		return r, err
	}
	return verify.Judge(e), nil
}

// verifyServer is the address of a server, of a name the first that is found.
func verifyServer(ctx context.Context, s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		s = net.JoinHostPort(a.String(), verifyPort)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, verifyPort
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return netip.AddrPort{}, fmt.Errorf("%q is not a host with a port, such as 198.51.100.10:3478 or [2001:db8::10]:3478", s)
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if found[0].Zone() != "" || found[0].IsLinkLocalUnicast() {
		return netip.AddrPort{}, fmt.Errorf("%s is link-local, and no pod reaches it: give an address of the host that routers know", found[0])
	}
	return netip.AddrPortFrom(found[0].Unmap(), uint16(n)), nil
}

// nodeFlows finds this node's conntrack entries of flows.
func nodeFlows(ctx context.Context, of []verify.FlowKey) ([]verify.NodeFlow, error) {
	var out []verify.NodeFlow
	_, err := conntrack.NewTable(0).Walk(ctx, func() conntrack.Visit {
		out = make([]verify.NodeFlow, len(of))
		for i := range out {
			out[i].State = verify.FlowUntracked
		}
		return func(f *conntrack.Flow) conntrack.Action {
			for i, k := range of {
				if out[i].State == verify.FlowTranslated || f.Protocol != compile.Protocol(k.Protocol) || f.Original.Source != k.From || f.Original.Destination != k.To {
					continue
				}
				if out[i] = (verify.NodeFlow{State: verify.FlowKept, As: f.Reply.Destination}); f.Translated() {
					out[i].State = verify.FlowTranslated
				}
			}
			return conntrack.Leave
		}
	})
	return out, err
}

// printReport writes a report for people.
func printReport(w io.Writer, r verify.Report) {
	say(w, "%s\n", sentenceCase(string(r.Verdict)))
	for _, f := range r.Findings {
		say(w, "\n%s: %s", f.Of, string(f.Verdict))
		if f.Place != nil {
			say(w, ", %s", f.Place.String())
		}
		say(w, "\n")
		for _, s := range f.Because {
			say(w, "  %s\n", s)
		}
	}
	if reason := r.Evidence.SizesReason; reason != "" {
		say(w, "\nsize: not probed\n  %s\n", sentenceCase(reason)+".")
	}
	if why := r.Evidence.Incomplete; why != "" {
		say(w, "\nThe evidence is incomplete: %s.\n", why)
	}
	printPath(w, &r.Evidence)
}

func printPath(w io.Writer, e *verify.Evidence) {
	if len(e.Path.Hops) == 0 && e.Path.End == 0 {
		return
	}
	say(w, "\nThe path to %s, by the ICMP errors that probes brought:\n", e.Server)
	for i, h := range e.Path.Hops {
		address := "silent"
		if h.Address.IsValid() {
			address = h.Address.String()
		}
		say(w, "  %d  %s\n", i+1, address)
	}
	if e.Path.End > 0 {
		say(w, "  %d  %s, the server\n", e.Path.End, e.Server.Addr())
	}
}

func sentenceCase(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}
