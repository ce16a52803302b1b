package datastore

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/model"
)

func TestPool(t *testing.T) {
	t.Parallel()
	manual := apiv3.Manual
	for _, test := range []struct {
		name string
		in   apiv3.IPPoolSpec
		want model.Pool
		err  string
	}{
		{"defaults of IPv4", apiv3.IPPoolSpec{CIDR: "10.0.0.0/8"}, model.Pool{
			CIDR: netip.MustParsePrefix("10.0.0.0/8"), VXLANMode: model.ModeNever, IPIPMode: model.ModeNever, BlockSize: 26,
			AllowedUses: model.UseWorkload | model.UseTunnel, NodeSelector: "all()", NamespaceSelector: "all()",
		}, ""},
		{"defaults of IPv6", apiv3.IPPoolSpec{CIDR: "fd00::/48", AllowedUses: []apiv3.IPPoolAllowedUse{}}, model.Pool{
			CIDR: netip.MustParsePrefix("fd00::/48"), VXLANMode: model.ModeNever, IPIPMode: model.ModeNever, BlockSize: 122,
			AllowedUses: model.UseWorkload | model.UseTunnel, NodeSelector: "all()", NamespaceSelector: "all()",
		}, ""},
		{"everything set", apiv3.IPPoolSpec{
			CIDR: "10.0.0.0/16", VXLANMode: apiv3.VXLANModeAlways, IPIPMode: apiv3.IPIPModeCrossSubnet, NATOutgoing: true, Disabled: true, DisableBGPExport: true,
			BlockSize: 28, NodeSelector: "a", NamespaceSelector: "b", AllowedUses: []apiv3.IPPoolAllowedUse{"LoadBalancer"}, AssignmentMode: &manual,
		}, model.Pool{
			CIDR: netip.MustParsePrefix("10.0.0.0/16"), VXLANMode: model.ModeAlways, IPIPMode: model.ModeCrossSubnet, NATOutgoing: true, Disabled: true, DisableBGPExport: true,
			BlockSize: 28, NodeSelector: "a", NamespaceSelector: "b", AllowedUses: model.UseLoadBalancer, ManualAssignment: true,
		}, ""},
		{"no CIDR", apiv3.IPPoolSpec{}, model.Pool{}, "spec.cidr"},
		{"IPv4 in IPv6", apiv3.IPPoolSpec{CIDR: "::ffff:10.0.0.0/104"}, model.Pool{}, "spec.cidr"},
		{"an unknown use", apiv3.IPPoolSpec{CIDR: "10.0.0.0/8", AllowedUses: []apiv3.IPPoolAllowedUse{"Workload", "x"}}, model.Pool{}, "spec.allowedUses[1]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.want.Name = "p"
			got, err := Pool(&apiv3.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: test.in})
			switch {
			case test.err != "":
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want one about %s", err, test.err)
				}
			case err != nil || *got != test.want:
				t.Errorf("got %+v, %v\nwant %+v", got, err, test.want)
			}
		})
	}
}

func TestNATConfiguration(t *testing.T) {
	t.Parallel()
	ports, allocation, flows, exclusions := "1024-2047", v1alpha1.PortAllocationPreserve, v1alpha1.ExistingFlowsReset, v1alpha1.ExclusionsIPPoolsAndHostIPs
	wantAllocation, wantFlows, wantExclusions := model.PortsPreserve, model.FlowsReset, model.ExcludeIPPoolsAndHostIPs
	for _, test := range []struct {
		name string
		in   v1alpha1.NATConfigurationSpec
		want model.NATConfiguration
	}{
		{"nothing set", v1alpha1.NATConfigurationSpec{}, model.NATConfiguration{NodeSelector: "all()"}},
		{"set to nothing", v1alpha1.NATConfigurationSpec{Addresses: []string{}, OutInterfaces: []string{}},
			model.NATConfiguration{NodeSelector: "all()", Addresses: []netip.Addr{}, OutInterfaces: []string{}}},
		{"everything set", v1alpha1.NATConfigurationSpec{NodeSelector: "x", Priority: -1, Exclusions: &exclusions, Addresses: []string{"192.0.2.1", "2001:db8::1"}, PortRange: &ports, PortAllocation: &allocation, ExistingFlows: &flows, OutInterfaces: []string{"eth*"}},
			model.NATConfiguration{NodeSelector: "x", Priority: -1, Exclusions: &wantExclusions, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
				PortRange: &model.PortRange{First: 1024, Last: 2047}, PortAllocation: &wantAllocation, ExistingFlows: &wantFlows, OutInterfaces: []string{"eth*"}}},
	} {
		test.want.Name = "c"
		got, err := NATConfiguration(&v1alpha1.NATConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: test.in})
		if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", test.name, err, diff)
		}
	}
	one, off := "4788-4788", v1alpha1.LeakGuardDisabled
	got, err := NATConfiguration(&v1alpha1.NATConfiguration{Spec: v1alpha1.NATConfigurationSpec{PortRange: &one, LeakGuard: &off}})
	if err != nil || *got.PortRange != (model.PortRange{First: 4788, Last: 4788}) || got.LeakGuard == nil || *got.LeakGuard != model.LeakGuardDisabled {
		t.Errorf("one port, and no guard: %+v, %v", got, err)
	}
	for _, bad := range []string{"", "1", "0-5", "9-8", "1-65536", "a-b", "1-2-3"} {
		if _, err := NATConfiguration(&v1alpha1.NATConfiguration{Spec: v1alpha1.NATConfigurationSpec{PortRange: &bad}}); err == nil || !strings.Contains(err.Error(), "spec.portRange") {
			t.Errorf("port range %q: %v", bad, err)
		}
	}
	if _, err := NATConfiguration(&v1alpha1.NATConfiguration{Spec: v1alpha1.NATConfigurationSpec{Addresses: []string{"x"}}}); err == nil || !strings.Contains(err.Error(), "spec.addresses[0]") {
		t.Error(err)
	}
}

func TestNode(t *testing.T) {
	t.Parallel()
	got, err := Node([]byte(`{"metadata":{"name":"n","labels":{"a":"b"}},"status":{"addresses":[{"type":"Hostname","address":"n"},
		{"type":"ExternalIP","address":"192.0.2.0"},{"type":"InternalIP","address":"192.0.2.1"},{"type":"ExternalIP","address":"192.0.2.1"},{"type":"InternalIP","address":"10.0.0.1"}]}}`))
	want := model.Node{Name: "n", Labels: map[string]string{"a": "b"}, // the first of type InternalIP comes first
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.0")}}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if _, err := Node([]byte(`{"status":{"addresses":[{"type":"InternalIP","address":"x"}]}}`)); err == nil || !strings.Contains(err.Error(), "status.addresses[0]") {
		t.Error(err)
	}
}

// TestNATConfigurationSetBack reads the values by which a field is set to its default, which is not the same as a field
// that is absent.
func TestNATConfigurationSetBack(t *testing.T) {
	t.Parallel()
	ports, link := "Any", v1alpha1.LinkLocalTranslate
	got, err := NATConfiguration(&v1alpha1.NATConfiguration{Spec: v1alpha1.NATConfigurationSpec{PortRange: &ports, LinkLocal: &link,
		Addresses: []string{}, OutInterfaces: []string{}}})
	if err != nil || got.PortRange == nil || !got.PortRange.IsZero() || got.LinkLocal == nil || *got.LinkLocal != model.LinkLocalTranslate ||
		got.Addresses == nil || got.OutInterfaces == nil {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := NATConfiguration(&v1alpha1.NATConfiguration{}); err != nil || got.PortRange != nil || got.LinkLocal != nil {
		t.Errorf("nothing set: %+v, %v", got, err)
	}
}

// TestLeakGuardOfAnEarlierVersion: what was saved or stored before the values had their names of today keeps its meaning.
func TestLeakGuardOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]model.LeakGuard{
		"Off": model.LeakGuardDisabled, "Enforce": model.LeakGuardEnabled, "Disabled": model.LeakGuardDisabled, "Enabled": model.LeakGuardEnabled,
	} {
		got, err := Value(KindNATConfiguration, []byte(`{"metadata":{"name":"c"},"spec":{"leakGuard":"`+in+`"}}`))
		if err != nil {
			t.Fatal(err)
		}
		if c := got.(model.NATConfiguration); c.LeakGuard == nil || *c.LeakGuard != want {
			t.Errorf("leakGuard %s is converted to %+v, want %s", in, c.LeakGuard, want)
		}
	}
}
