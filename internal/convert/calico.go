package convert

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/model"
)

// calicoVersions are the versions under which Calico's resources are shown and stored.
var calicoVersions = []string{"projectcalico.org/v3", "crd.projectcalico.org/v1"}

// calicoMetadata is where Calico keeps the metadata of a resource that it stores as crd.projectcalico.org/v1.
const calicoMetadata = "projectcalico.org/metadata"

// lastApplied is where kubectl keeps what was applied last.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Calico converts Calico's resources: IPPools stay what they are, FelixConfigurations become NATConfigurations.
// Of others it names those that have to do with outgoing NAT.
func Calico(docs []Document) (*Result, []model.Fault) {
	c := calicoConverter{result: &Result{From: "Calico"}, pools: map[string]seenPool{}, felix: map[string]*felixConfig{}}
	for i := range docs {
		c.document(&docs[i])
	}
	if len(c.faults) == 0 && len(c.pools) == 0 && len(c.felix) == 0 {
		c.fault(place{}, "", "there is neither an IPPool nor a FelixConfiguration of Calico: give what is printed by: kubectl get ippools,felixconfigurations -o yaml")
	}
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	c.felixConfigurations()
	c.note(place{}, "", "Sallyport never translates towards multicast and broadcast addresses; Calico does. Nothing is to be done, since no "+
		"connection goes there")
	c.note(place{}, "", "Calico's agent takes settings also from the environment and the configuration file of calico-node, where they come "+
		"before those of resources: look for FELIX_NATPORTRANGE, FELIX_NATOUTGOINGADDRESS, FELIX_NATOUTGOINGEXCLUSIONS and "+
		"FELIX_IPTABLESNATOUTGOINGINTERFACEFILTER, and write what they say into a NATConfiguration")
	return c.result, nil
}

type seenPool struct {
	manifest Manifest
	place    place
}

// calicoConverter collects what one conversion comes to.
type calicoConverter struct {
	result *Result
	faults []model.Fault
	pools  map[string]seenPool
	felix  map[string]*felixConfig // by name
}

func (c *calicoConverter) note(p place, field, format string, args ...any) {
	c.result.Notes = append(c.result.Notes, p.says(field, format, args...))
}

func (c *calicoConverter) fault(p place, field, format string, args ...any) {
	c.faults = append(c.faults, p.says(field, format, args...))
}

// document takes one resource.
func (c *calicoConverter) document(doc *Document) {
	if doc.Value == nil {
		return
	}
	tree, ok := doc.Value.(map[string]any)
	if !ok {
		c.fault(place{doc: doc}, "", "is %s: a resource begins with apiVersion and kind", typeName(doc.Value))
		return
	}
	kind, _ := tree["kind"].(string)
	apiVersion, _ := tree["apiVersion"].(string)
	meta, _ := tree["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	p := place{doc: doc, kind: kind, name: name}
	switch {
	case kind == "":
		c.fault(p, "kind", "is missing: give resources of Calico, such as: kubectl get ippools,felixconfigurations -o yaml")
	case kind == "ipPool" && apiVersion == "v1":
		c.fault(p, "apiVersion", "v1 is of Calico before 3.0: convert it to projectcalico.org/v3 with calicoctl first")
	case kind == "Installation":
		c.note(p, "spec.calicoNetwork.ipPools", "makes Calico's operator write IPPools, and is not converted itself: give the IPPools that stand in the cluster")
	case kind != apiv3.KindIPPool && kind != "FelixConfiguration":
	case !slices.Contains(calicoVersions, apiVersion):
		c.fault(p, "apiVersion", "%s is not Calico's for %s: it must be %s", quote(apiVersion), kind, strings.Join(calicoVersions, " or "))
	case name == "":
		c.fault(p, "metadata.name", "is missing: every resource has one")
	case kind == apiv3.KindIPPool:
		c.pool(p, tree)
	default:
		c.felixConfiguration(p, tree)
	}
}

// pool takes over an IPPool, without what a server writes.
func (c *calicoConverter) pool(p place, tree map[string]any) {
	spec, ok := tree["spec"].(map[string]any)
	if !ok {
		c.fault(p, "spec", "must be a mapping of fields to values, not %s", typeName(tree["spec"]))
		return
	}
	kept := map[string]any{}
	known := poolFields()
	for _, field := range slices.Sorted(maps.Keys(spec)) {
		switch {
		case spec[field] == nil:
		case slices.Contains(known, field):
			kept[field] = spec[field]
		case field == "nat-outgoing" || field == "ipip":
			c.note(p, "spec."+field, "is what Calico before 3.0 read, and no version does now: left out. Nothing is to be done, since natOutgoing decides")
		default:
			c.note(p, "spec."+field, "is no field of Sallyport's, and has no part in outgoing NAT: left out. Nothing is to be done for translation")
		}
	}
	if uses, ok := spec["allowedUses"].([]any); ok && len(uses) == 1 && uses[0] == string(apiv3.IPPoolAllowedUseLoadBalancer) {
		c.note(p, "spec.allowedUses", "a destination in a pool for LoadBalancer alone is like any other outside to Sallyport, and is translated towards. "+
			"If Calico does not do so for yours, add a disabled pool of the same range")
	}
	m := pool(p.name, "", kept)
	m.Source = p.doc
	meta := m.Object["metadata"].(map[string]any)
	was, _ := tree["metadata"].(map[string]any)
	for _, field := range []string{"labels", "annotations"} {
		if values := withoutServerNotes(was[field]); len(values) > 0 {
			meta[field] = values
		}
	}
	if first, twice := c.pools[p.name]; twice {
		if !reflect.DeepEqual(first.manifest.Object, m.Object) {
			c.fault(p, "", "stands in the input twice, and not alike: leave one of the two out")
		}
		return
	}
	c.pools[p.name] = seenPool{m, p}
	c.result.Manifests = append(c.result.Manifests, m)
}

// withoutServerNotes copies labels or annotations, without what servers and kubectl keep there for themselves.
func withoutServerNotes(v any) map[string]any {
	in, _ := v.(map[string]any)
	out := maps.Clone(in)
	delete(out, calicoMetadata)
	delete(out, lastApplied)
	return out
}

// poolFields are the fields of the spec of an IPPool.
func poolFields() []string {
	var out []string
	t := reflect.TypeFor[apiv3.IPPoolSpec]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out = append(out, name)
	}
	return out
}
