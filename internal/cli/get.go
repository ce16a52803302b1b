package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/dir"
	"github.com/sallyport/sallyport/internal/ipam"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
	"github.com/sallyport/sallyport/internal/yaml"
)

// resource is one kind as the command line knows it.
type resource struct {
	kind    string
	full    string // as kubectl prints it
	aliases []string
	table   func(w io.Writer, l *datastore.Loaded, named map[string]bool, wide bool)
}

// resources are the kinds that a directory may hold.
func resources() []resource {
	return []resource{
		{datastore.KindIPPool, "ippool.projectcalico.org", []string{"ippools", "ippool", "ipp", "pools", "pool"}, tablePools},
		{datastore.KindNATConfiguration, "natconfiguration.sallyport.dev", []string{"natconfigurations", "natconfiguration", "natconfig", "nat"}, tableNAT},
		{datastore.KindNode, "node", []string{"nodes", "node", "no"}, tableNodes},
		{datastore.KindIPReservation, "ipreservation.projectcalico.org", []string{"ipreservations", "ipreservation"}, tableReservations},
		{datastore.KindNodeNetworkConfiguration, "nodenetworkconfiguration.sallyport.dev", []string{"nodenetworkconfigurations", "nodenetworkconfiguration", "nodenet"}, tableNodeNetwork},
		{datastore.KindIPBlock, "ipblock.sallyport.dev", []string{"ipblocks", "ipblock", "ipb"}, tableBlocks},
		{datastore.KindBGPPeer, "bgppeer.projectcalico.org", []string{"bgppeers", "bgppeer"}, tableBGPPeers},
		{datastore.KindBGPConfiguration, "bgpconfiguration.projectcalico.org", []string{"bgpconfigurations", "bgpconfiguration", "bgpconfigs", "bgpconfig"}, tableBGPConfigurations},
		{datastore.KindBGPFilter, "bgpfilter.projectcalico.org", []string{"bgpfilters", "bgpfilter"}, tableBGPFilters},
	}
}

// findResource finds a kind by what a person typed: a kind, an alias, or a full name.
func findResource(name string) (resource, error) {
	var known []string
	for _, r := range resources() {
		short, _, _ := strings.Cut(strings.ToLower(name), ".")
		if slices.Contains(r.aliases, short) && (short == strings.ToLower(name) || fits(r, name)) {
			return r, nil
		}
		known = append(known, r.aliases[0])
	}
	return resource{}, fmt.Errorf("there is no kind %q here: it is one of %s", name, strings.Join(known, ", "))
}

// fits says whether a name with a group, such as ippools.projectcalico.org, has the kind's group.
func fits(r resource, name string) bool {
	_, group, _ := strings.Cut(strings.ToLower(name), ".")
	_, want, _ := strings.Cut(r.full, ".")
	return want != "" && (group == want || r.kind == datastore.KindIPPool && group == "crd.projectcalico.org")
}

// fullName is how kubectl names an object of a kind.
func fullName(kind, name string) string {
	for _, r := range resources() {
		if r.kind == kind {
			return r.full + "/" + name
		}
	}
	return strings.ToLower(kind) + "/" + name
}

func getCommand(g *global) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...]",
		Short: "List what the manifests, or the API of a cluster, declare",
		Long: `List what the manifests or, with --datastore kubernetes, the API of a cluster declare, as it stands now, and whether
pools give out addresses. The agent answers, if it watches the same manifests and holds them as they are; else the command
reads them. In a cluster, PROGRAMMED is what its controller says of the nodes: "-" where it says nothing
yet. Faulty objects are reported on standard error, and the exit code is 1 if there are any.

KIND is ippools (ippool, ipp, pools, pool), natconfigurations (nat), nodes, ipreservations, nodenetworkconfigurations (nodenet),
bgppeers, bgpconfigurations (bgpconfig), bgpfilters, or ipblocks (ipb), which only a cluster has.`,
		Example:           "  sallyport get pools\n  sallyport get ippool private -o yaml",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeObjects(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "", "wide", "yaml", "json", "name"); err != nil {
				return err
			}
			r, err := findResource(args[0])
			if err != nil {
				return err
			}
			l, err := g.declared(cmd.Context(), r.kind, args[1:])
			if err != nil {
				return err
			}
			g.sayFaults(cmd.ErrOrStderr(), l.Faults)
			chosen, missing := choose(l, r, args[1:])
			out := human(cmd)
			if output == "json" || output == "yaml" {
				out = cmd.OutOrStdout()
			}
			if err := printObjects(out, l, r, chosen, output, len(args) == 2); err != nil {
				return err
			}
			for _, name := range missing {
				say(cmd.ErrOrStderr(), "sallyport: %s was not found in %s\n", fullName(r.kind, name), g.source())
			}
			if len(l.Faults) > 0 || len(missing) > 0 {
				return errSilent
			}
			return nil
		},
	}
	datastoreFlags(cmd, g)
	outputFlag(cmd, &output, "wide", "yaml", "json", "name")
	return cmd
}

// declared reads the objects of a kind; those with the names given, where there are any. Where the agent of this directory
// holds the manifests as they are, it says what they declare, and none is read or validated again. Else the agent is
// asked only for the pools' conditions: it knows which pool came first.
func (g *global) declared(ctx context.Context, kind string, names []string) (*datastore.Loaded, error) {
	if err := g.checkDatastore(); err != nil {
		return nil, err
	}
	if g.datastore == string(agent.Kubernetes) {
		return g.load(ctx, kind == datastore.KindIPBlock)
	}
	said, err := g.client().Objects(ctx, kind, names)
	ours := err == nil && sameDir(said.Dir, g.dir)
	if ours && said.Current {
		objects := make([]datastore.Object, len(said.Objects))
		for i, o := range said.Objects {
			objects[i] = datastore.Object{Key: datastore.Key{Kind: o.Kind, Name: o.Name}, JSON: o.Object}
		}
		if l := dir.Assemble(objects); len(l.Faults) == 0 {
			l.Conditions = conditionsOf(l, said.Pools)
			return l, nil
		}
	}
	l, err := loadDir(g.dir)
	if err == nil && ours {
		l.Conditions = conditionsOf(l, said.Pools)
		if said.Fault != nil { // a mount hides what is declared, for all that can be read here
			l.Faults = append(l.Faults, *said.Fault)
		}
	}
	return l, err
}

// conditionsOf are the pools' conditions as they follow from what was loaded, and as the agent says of pools that it has
// read as they are.
func conditionsOf(l *datastore.Loaded, said []agent.PoolStatus) map[string]compile.Condition {
	out := maps.Clone(l.Conditions)
	for _, p := range l.Snapshot.Pools {
		n, found := slices.BinarySearchFunc(said, p.Name, func(s agent.PoolStatus, name string) int { return strings.Compare(s.Name, name) })
		if found && said[n].CIDR == p.CIDR && said[n].Disabled == p.Disabled {
			out[p.Name] = compile.Condition{Allocatable: said[n].Allocatable, Reason: said[n].Reason, Message: said[n].Message}
		}
	}
	return out
}

// sameFile says whether two paths lead to the same file or directory.
func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// choose picks the objects of a kind, all of them where no name is given.
func choose(l *datastore.Loaded, r resource, names []string) (chosen []datastore.Object, missing []string) {
	for _, o := range l.Objects {
		if o.Kind == r.kind && (len(names) == 0 || slices.Contains(names, o.Name)) {
			chosen = append(chosen, o)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(chosen, func(o datastore.Object) bool { return o.Name == n }) {
			missing = append(missing, n)
		}
	}
	return chosen, missing
}

func printObjects(w io.Writer, l *datastore.Loaded, r resource, objects []datastore.Object, output string, single bool) error {
	switch output {
	case "name":
		for _, o := range objects {
			say(w, "%s\n", fullName(o.Kind, o.Name))
		}
		return nil
	case "json", "yaml":
		return printDocuments(w, l, objects, output, single)
	default:
		if len(objects) == 0 {
			return nil
		}
		return printTable(w, l, r, objects, output == "wide")
	}
}

// printDocuments prints one object as itself, and several as a List, as kubectl does.
func printDocuments(w io.Writer, l *datastore.Loaded, objects []datastore.Object, output string, single bool) error {
	items := make([]any, 0, len(objects))
	for _, o := range objects {
		m, err := o.Map()
		if err != nil {
			return err
		}
		if c, ok := l.Conditions[o.Name]; ok && o.Kind == datastore.KindIPPool && l.Programmed == nil { // else it has a status of its own
			m["status"] = map[string]any{"conditions": []any{conditionObject(c)}}
		}
		items = append(items, m)
	}
	var doc any = map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
	switch {
	case single && len(items) == 1:
		doc = items[0]
	case single:
		return nil // what is missing is said on standard error
	}
	if output == "json" {
		return printJSON(w, doc)
	}
	b, err := yaml.Encode(doc)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func conditionObject(c compile.Condition) map[string]any {
	status := "False"
	if c.Allocatable {
		status = "True"
	}
	return map[string]any{"type": "Allocatable", "status": status, "reason": c.Reason, "message": c.Message}
}

func printTable(w io.Writer, l *datastore.Loaded, r resource, objects []datastore.Object, wide bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	named := map[string]bool{}
	for _, o := range objects {
		named[o.Name] = true
	}
	r.table(t, l, named, wide)
	return t.Flush()
}

func tablePools(w io.Writer, l *datastore.Loaded, named map[string]bool, wide bool) {
	fmt.Fprint(w, "NAME\tCIDR\tNATOUTGOING\tDISABLED\tALLOCATABLE")
	if l.Programmed != nil {
		fmt.Fprint(w, "\tPROGRAMMED")
	}
	if wide {
		fmt.Fprint(w, "\tVXLAN\tIPIP\tBLOCKSIZE\tNODES\tNAMESPACES\tMESSAGE")
	}
	fmt.Fprintln(w)
	for _, p := range l.Snapshot.Pools {
		if !named[p.Name] {
			continue
		}
		c := l.Conditions[p.Name]
		say(w, "%s\t%s\t%t\t%t\t%s", p.Name, p.CIDR, p.NATOutgoing, p.Disabled, c.Reason)
		if l.Programmed != nil {
			say(w, "\t%s", cmp.Or(l.Programmed[p.Name], "-"))
		}
		if wide {
			say(w, "\t%s\t%s\t%d\t%s\t%s\t%s", p.VXLANMode, p.IPIPMode, p.BlockSize, cell(p.NodeSelector), cell(p.NamespaceSelector), c.Message)
		}
		fmt.Fprintln(w)
	}
}

func tableNAT(w io.Writer, l *datastore.Loaded, named map[string]bool, wide bool) {
	fmt.Fprint(w, "NAME\tPRIORITY\tNODES\tEXCLUSIONS\tADDRESSES\tPORTS")
	if wide {
		fmt.Fprint(w, "\tPORTALLOCATION\tEXISTINGFLOWS\tOUTINTERFACES\tLINKLOCAL\tLEAKGUARD")
	}
	fmt.Fprintln(w)
	for i := range l.Snapshot.NATConfigurations {
		c := &l.Snapshot.NATConfigurations[i]
		if !named[c.Name] {
			continue
		}
		say(w, "%s\t%d\t%s\t%s\t%s\t%s", c.Name, c.Priority, cell(c.NodeSelector), orDash(c.Exclusions), list(c.Addresses), portsOf(c.PortRange))
		if wide {
			say(w, "\t%s\t%s\t%s\t%s\t%s", orDash(c.PortAllocation), orDash(c.ExistingFlows), list(c.OutInterfaces), orDash(c.LinkLocal), orDash(c.LeakGuard))
		}
		fmt.Fprintln(w)
	}
}

func tableNodes(w io.Writer, l *datastore.Loaded, named map[string]bool, wide bool) {
	fmt.Fprint(w, "NAME\tADDRESSES")
	if wide {
		fmt.Fprint(w, "\tLABELS")
	}
	fmt.Fprintln(w)
	for i := range l.Snapshot.Nodes {
		n := &l.Snapshot.Nodes[i]
		if !named[n.Name] {
			continue
		}
		say(w, "%s\t%s", n.Name, list(n.Addresses))
		if wide {
			labels, _ := json.Marshal(n.Labels) // a map of strings always encodes
			say(w, "\t%s", labels)
		}
		fmt.Fprintln(w)
	}
}

func tableReservations(w io.Writer, l *datastore.Loaded, named map[string]bool, _ bool) {
	fmt.Fprintln(w, "NAME\tCIDRS")
	for i := range l.Snapshot.Reservations {
		if r := &l.Snapshot.Reservations[i]; named[r.Name] {
			say(w, "%s\t%s\n", r.Name, list(r.CIDRs))
		}
	}
}

func tableNodeNetwork(w io.Writer, l *datastore.Loaded, named map[string]bool, _ bool) {
	fmt.Fprintln(w, "NAME\tPRIORITY\tNODES\tINTERFACE\tCIDRS\tMTU\tVXLANPORT\tVXLANVNI")
	for i := range l.Snapshot.NodeNetworkConfigurations {
		if c := &l.Snapshot.NodeNetworkConfigurations[i]; named[c.Name] {
			say(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, c.Priority, cell(c.NodeSelector), orDash(c.Interface), list(c.CIDRs),
				number(c.MTU), number(c.VXLANPort), number(c.VXLANVNI))
		}
	}
}

// tableBlocks prints blocks in the order of addresses.
func tableBlocks(w io.Writer, l *datastore.Loaded, named map[string]bool, _ bool) {
	fmt.Fprintln(w, "NAME\tCIDR\tNODE\tPOOL\tALLOCATED\tCOOLING")
	used := usedOf(l.Objects)
	for _, b := range l.Snapshot.Blocks {
		if name := ipam.Name(b.CIDR); named[name] {
			u := used[name]
			say(w, "%s\t%s\t%s\t%s\t%d\t%d\n", name, b.CIDR, b.Node, b.Pool, u.Allocated, u.Cooling)
		}
	}
}

// usedOf is how much of each block is in use, by the block's name.
func usedOf(objects []datastore.Object) map[string]v1alpha1.IPBlockStatus {
	out := map[string]v1alpha1.IPBlockStatus{}
	for i := range objects {
		var block v1alpha1.IPBlock
		if o := &objects[i]; o.Kind == datastore.KindIPBlock && json.Unmarshal(o.JSON, &block) == nil { // its conversion succeeded
			out[o.Name] = block.Status
		}
	}
	return out
}

// number is a field's value, or "-" where it is not set.
func number[T int | uint16 | uint32](v *T) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprint(*v)
}

// cell is the beginning of a selector: a whole one would make every row as wide.
func cell(selector string) string {
	return text.Clip(selector, 60)
}

// orDash is a field's value, or "-" where it is not set.
func orDash[T ~string](v *T) string {
	if v == nil {
		return "-"
	}
	return string(*v)
}

func portsOf(r *model.PortRange) string {
	switch {
	case r == nil:
		return "-"
	case r.IsZero():
		return "Any"
	}
	return r.String()
}

// list is "-" for a list that is not set, and "none" for one that is set to nothing.
func list[T any](vs []T) string {
	switch {
	case vs == nil:
		return "-"
	case len(vs) == 0:
		return "none"
	}
	s := make([]string, len(vs))
	for i, v := range vs {
		s[i] = fmt.Sprint(v)
	}
	return strings.Join(s, ",")
}

// completeObjects completes a kind, and then names of it.
func completeObjects(g *global) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var out []string
		if len(args) == 0 {
			for _, r := range resources() {
				out = append(out, r.aliases[0])
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		}
		r, err := findResource(args[0])
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		l, err := g.declared(cmd.Context(), r.kind, nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, o := range l.Objects {
			if o.Kind == r.kind && !slices.Contains(args[1:], o.Name) {
				out = append(out, text.Line(o.Name))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
