package validate

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/sallyport/sallyport/internal/validate/validatetest"
	"github.com/sallyport/sallyport/internal/yaml"
)

// FuzzCreate looks for documents that panic, that change the argument, or that are blamed without a word.
func FuzzCreate(f *testing.F) {
	for _, document := range []string{
		validatetest.Pool("{cidr: 10.244.0.0/16, natOutgoing: true, blockSize: 26, allowedUses: [Workload], nodeSelector: has(a)}"),
		validatetest.Pool("{cidr: 'fd00::/64', vxlanMode: Always, blockSize: 122, assignmentMode: Manual, colour: [1, {a: null}]}"),
		validatetest.Pool("{cidr: 10.0.0.0/33, ipipMode: off, allowedUses: [LoadBalancer, 5, null]}"),
		validatetest.Configuration("{addresses: [192.0.2.1, '2001:db8::1'], portRange: 1-2, outInterfaces: ['eth*'], priority: 1e9}"),
		validatetest.Configuration("{addresses: {}, portRange: 9-1, outInterfaces: [{}], exclusions: 1.5}"),
		validatetest.Reservation("{reservedCIDRs: [10.0.0.0/28, 5, 'fd00::/120']}"),
		validatetest.NetworkConfiguration("{nodeSelector: a, nodeAddress: {interface: 'eth*', cidrs: [10.0.0.0/8]}, mtu: 1500, vxlan: {port: 0, vni: 1e9, x: {}}}"),
		validatetest.Block("6-fd00-0010-0000-0000-0000-0000-0000-0040-122 {cidr: 'fd00:10::40/122', node: n, pool: p, poolUID: u}"),
		validatetest.Block("4-10-0-0-0-26 {cidr: 10.0.0.0/27, node: [], pool: ''}"),
		validatetest.BGPPeer("{peerIP: '[fe80::1%eth0]:179', asNumber: 65001, keepaliveTime: 1m, password: {secretKeyRef: {name: a, key: b}}, peerSelector: a}"),
		validatetest.BGPFilter("{importV4: [{action: Accept, cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 9}, operations: [{}]}, 5], exportV6: {}}"),
		validatetest.BGPConfiguration("default {communities: [{name: a, value: '1:2'}, 5], prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [a, 5, {}]}], bindMode: 1}"),
		"{apiVersion: v1, kind: Node, metadata: {name: n1, annotations: {projectcalico.org/ASNumber: '1.2', projectcalico.org/RouteReflectorClusterID: x}}}",
		"{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {a: b}}, status: {addresses: [{type: InternalIP, address: 1.2.3.4}]}}",
		"{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: [], labels: {a: 1}, managedFields: [1], ownerReferences: {}}, spec: []}",
		"{}", "{kind: 1, metadata: 2, spec: 3}",
	} {
		var data json.RawMessage
		err := yaml.Unmarshal([]byte(document), &data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(data))
	}
	v := newValidator(f)
	old := decode(f, validatetest.Pool("{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var obj map[string]any
		if utiljson.Unmarshal(data, &obj) != nil {
			return
		}
		before, err := utiljson.Marshal(obj)
		if err != nil {
			return
		}
		faults := append(v.Create(obj), v.Update(obj, old)...)
		// The new object as the old one: nothing of what it holds may trip the rules about changes.
		faults = append(faults, v.Update(obj, obj)...)
		for _, fault := range faults {
			if fault.Message == "" || strings.Contains(fault.Field, "<nil>") {
				t.Errorf("a fault without a message or a field: %#v", fault)
			}
		}
		if after, err := utiljson.Marshal(obj); err != nil || string(after) != string(before) {
			t.Errorf("the object was changed from\n%s to\n%s (%v)", before, after, err)
		}
	})
}

// TestConcurrent lets the race detector watch one Validator at work for many.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	right := decode(t, validatetest.Pool("{cidr: 10.244.0.0/16, vxlanMode: Always}"))
	wrong := decode(t, validatetest.Pool("{cidr: 10.244.0.1/16, vxlanmode: Always}"))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				if faults := v.Update(right, right); len(faults) != 0 {
					t.Errorf("the right one: %v", faults)
				}
				if faults := v.Create(wrong); len(faults) != 1 {
					t.Errorf("the wrong one: %v", faults)
				}
			}
		})
	}
	group.Wait()
}

// TestSeveralFaults shows that faults which do not depend on each other are all told, sorted by field.
func TestSeveralFaults(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	obj := decode(t, "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: A, labels: {'x y': z}}, spec: {cidr: 10.244.0.1/16, blockSize: 40, nodeSelector: '(', namespaceSelector: has(a), allowedUses: [Tunnel]}}")
	want := []string{"metadata.labels", "metadata.name", "spec.blockSize", "spec.cidr", "spec.namespaceSelector", "spec.nodeSelector"}
	faults := v.Create(obj)
	var got []string
	for _, fault := range faults {
		got = append(got, fault.Field)
		if fault.Kind != "IPPool" || fault.Name != "A" || fault.File != "" || fault.Line != 0 {
			t.Errorf("%#v", fault)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %v, want %v", got, want)
	}
}
