package validate

import (
	"testing"

	"github.com/sallyport/sallyport/internal/validate/validatetest"
)

func TestMetadata(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, test := range validatetest.Metadata() {
		for _, head := range []string{
			"apiVersion: projectcalico.org/v3, kind: IPPool, spec: {cidr: 10.0.0.0/16}",
			"apiVersion: sallyport.dev/v1alpha1, kind: NATConfiguration, spec: {}",
			"apiVersion: v1, kind: Node",
		} {
			run(t, "{"+head+", metadata: "+test.Text+"}", v.Create, test.Field, test.Message)
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

func TestAnnouncedAddresses(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, test := range []specCase{
		{"sallyport.dev/network-addresses: '192.0.2.1,2001:db8::1', sallyport.dev/tunnel-addresses: 10.0.0.1", "", ""},
		{"projectcalico.org/ASNumber: '4294967295', projectcalico.org/RouteReflectorClusterID: 244.0.0.1", "", ""},
		{"projectcalico.org/ASNumber: '1.10', projectcalico.org/RouteReflectorClusterID: ''", "", ""},
		{"projectcalico.org/ASNumber: '0'", "metadata.annotations", "an AS number, 1 to 4294967295"},
		{"projectcalico.org/ASNumber: '65536.1'", "metadata.annotations", "an AS number"},
		{"projectcalico.org/RouteReflectorClusterID: '::1'", "metadata.annotations", "of the form of an IPv4 address"},
		{"sallyport.dev/network-addresses: ''", "", ""},
		{"sallyport.dev/network-addresses: '192.0.2.1,192.0.2.2'", "metadata.annotations", "at most one address of each family"},
		{"sallyport.dev/network-addresses: '192.0.2.1 '", "metadata.annotations", "at most one address"},
		{"sallyport.dev/tunnel-addresses: n1", "metadata.annotations", "the value of sallyport.dev/tunnel-addresses must be"},
		{"sallyport.dev/tunnel-addresses: 'fe80::1%eth0'", "metadata.annotations", "at most one address"},
		{"sallyport.dev/tunnel-addresses: 127.0.0.1", "metadata.annotations", "at most one address"},
	} {
		run(t, "{apiVersion: v1, kind: Node, metadata: {name: n1, annotations: {"+test.spec+"}}}", v.Create, test.field, test.message)
	}
}
