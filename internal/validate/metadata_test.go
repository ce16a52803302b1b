package validate

import (
	"strings"
	"testing"
)

func TestMetadata(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, test := range []specCase{
		{"{name: a}", "", ""},
		{"{name: my.pool-1.example}", "", ""},
		{"{name: " + long(253) + "}", "", ""},
		{"{name: " + long(254) + "}", "metadata.name", "at most 253"},
		{"{name: My_Pool}", "metadata.name", `"My_Pool" is not a name`},
		{"{name: -a}", "metadata.name", "is not a name"},
		{"{name: a..b}", "metadata.name", "is not a name"},
		{"{name: a/b}", "metadata.name", "is not a name"},
		{"{name: ''}", "metadata.name", "is missing"},
		{"{}", "metadata.name", "is missing"},
		{"null", "metadata.name", "is missing"},
		{"{generateName: a-}", "metadata.name", "is missing"},
		{"{name: 5}", "metadata.name", "must be text"},
		{"text", "metadata", "must be a mapping"},
		{"[]", "metadata", "must be a mapping"},
		{"{name: a, namespace: default}", "metadata.namespace", "belongs to no namespace"},

		{"{name: a, labels: {zone: a, example.com/x_y.z: '', empty: ''}}", "", ""},
		{"{name: a, labels: {}}", "", ""},
		{"{name: a, labels: null}", "", ""},
		{"{name: a, labels: {'bad key': x}}", "metadata.labels", `"bad key" is not valid`},
		{"{name: a, labels: {a: 'bad value'}}", "metadata.labels", `"bad value" is not valid`},
		{"{name: a, labels: {a: " + long(64) + "}}", "metadata.labels", "63"},
		{"{name: a, labels: {" + long(64) + ": a}}", "metadata.labels", "63"},
		{"{name: a, labels: {a: true}}", "metadata.labels", `the value of "a" must be text; put it in quotes`},
		{"{name: a, labels: {a: 1}}", "metadata.labels", "put it in quotes"},
		{"{name: a, labels: [a]}", "metadata.labels", "must be a mapping"},

		{"{name: a, annotations: {note: 'anything at all, and more'}}", "", ""},
		{"{name: a, annotations: {'bad key': x}}", "metadata.annotations", "is not valid"},
		{"{name: a, annotations: {a: 5}}", "metadata.annotations", "put it in quotes"},
		{"{name: a, annotations: {a: " + long(262144) + "}}", "metadata.annotations", "262144"},

		// What a server fills in.
		{"{name: a, uid: 3a2b, resourceVersion: '12', generation: 3, creationTimestamp: '2026-01-02T03:04:05Z', selfLink: /x}", "", ""},
		{"{name: a, creationTimestamp: null}", "", ""},
		{"{name: a, generateName: a-}", "", ""},
		{"{name: a, finalizers: [example.com/x]}", "", ""},
		{"{name: a, ownerReferences: [{apiVersion: v1, kind: Node, name: n1, uid: u}]}", "", ""},
		{"{name: a, managedFields: [{manager: kubectl, operation: Update, apiVersion: projectcalico.org/v3, fieldsType: FieldsV1, fieldsV1: {'f:spec': {}}}]}", "", ""},
		{"{name: a, ownerReferences: [{name: n}]}", "metadata.ownerReferences.name", "cannot be true or false"},
		{"{name: a, generation: many}", "metadata.generation", "cannot be text"},

		{"{name: a, lables: {a: b}}", "metadata.lables", "did you mean labels?"},
		{"{name: a, colour: blue}", "metadata.colour", "put it under labels or annotations"},
	} {
		for _, head := range []string{
			"apiVersion: projectcalico.org/v3, kind: IPPool, spec: {cidr: 10.0.0.0/16}",
			"apiVersion: sallyport.dev/v1alpha1, kind: NATConfiguration, spec: {}",
			"apiVersion: v1, kind: Node",
		} {
			run(t, "{"+head+", metadata: "+test.spec+"}", v.Create, test.field, test.message)
		}
	}
}

func TestKinds(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, test := range []struct{ document, field, message string }{
		{"{}", "kind", "must be one of IPPool, NATConfiguration, Node"},
		{"{apiVersion: v1}", "kind", "is missing"},
		{"{kind: 5}", "kind", "is missing"},
		{"{kind: Pod, apiVersion: v1, metadata: {name: a}}", "kind", `"Pod" is not a kind that is known here; use one of IPPool, NATConfiguration, Node`},
		{"{kind: ippool, apiVersion: projectcalico.org/v3}", "kind", "use one of IPPool"},
		{"{kind: IPPoolList, apiVersion: projectcalico.org/v3}", "kind", "use one of"},
		{"{kind: IPPool, metadata: {name: a}, spec: {cidr: 10.0.0.0/16}}", "apiVersion", "for IPPool write projectcalico.org/v3"},
		{"{kind: IPPool, apiVersion: projectcalico.org/v1}", "apiVersion", `"projectcalico.org/v1" has no kind IPPool; write projectcalico.org/v3`},
		{"{kind: IPPool, apiVersion: crd.projectcalico.org/v3}", "apiVersion", "write projectcalico.org/v3"},
		{"{kind: NATConfiguration, apiVersion: sallyport.dev/v1}", "apiVersion", "write sallyport.dev/v1alpha1"},
		{"{kind: Node, apiVersion: projectcalico.org/v3}", "apiVersion", "write v1"},
		{"{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: a}}", "spec", "is missing"},
		{"{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: a}, spec: {cidr: 10.0.0.0/16}, data: {}}", "data", "no field"},
		{"{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: a}, specs: {cidr: 10.0.0.0/16}}", "specs", "did you mean spec?"},
		{"{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: a}, spec: {cidr: 10.0.0.0/16}, status: {conditions: [{type: Allocatable}], x: 1}}", "", ""},
		{"{kind: IPPool, apiVersion: projectcalico.org/v3, metadata: {name: a}, spec: {cidr: 10.0.0.0/16}, status: text}", "", ""},
	} {
		run(t, test.document, v.Create, test.field, test.message)
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, test := range []specCase{
		{"{}", "", ""},
		{"{addresses: []}", "", ""},
		{"{addresses: [{type: InternalIP, address: 192.0.2.1}, {type: ExternalIP, address: '2001:db8::1'}, {type: Hostname, address: n1}]}", "", ""},
		{"{capacity: {cpu: '2'}, conditions: [{type: Ready}], addresses: [{type: InternalDNS, address: n.local}]}", "", ""},
		{"{addresses: [{type: Hostname, address: 5}]}", "", ""},
		{"text", "status", "must be a mapping"},
		{"{addresses: {type: InternalIP}}", "status.addresses", "must be a list"},
		{"{addresses: [192.0.2.1]}", "status.addresses[0]", "must have the fields type and address"},
		{"{addresses: [{type: InternalIP, address: 192.0.2.1}, {address: 192.0.2.2}]}", "status.addresses[1].type", "is missing"},
		{"{addresses: [{type: InternalIP}]}", "status.addresses[0].address", "is missing"},
		{"{addresses: [{type: InternalIP, address: n1}]}", "status.addresses[0].address", `"n1" is not an IP address`},
		{"{addresses: [{type: ExternalIP, address: 192.0.2.1/24}]}", "status.addresses[0].address", "is not an IP address"},
		{"{addresses: [{type: InternalIP, address: 'fe80::1%eth0'}]}", "status.addresses[0].address", "is not an IP address"},
	} {
		run(t, "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.0.0.0/24, taints: []}, status: "+test.spec+"}", v.Create, test.field, test.message)
	}
}
