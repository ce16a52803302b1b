package validate

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/model"
)

// specCase is a spec with the field that is to blame, "" for none, and a part of the message.
type specCase struct{ spec, field, message string }

func TestCreatePool(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	long := strings.Repeat("x", 16384-7)
	for _, test := range []specCase{
		// The range.
		{"{cidr: 10.244.0.0/16}", "", ""},
		{"{cidr: 10.0.0.0/8}", "", ""},
		{"{cidr: 0.0.0.0/0, disabled: true}", "spec.cidr", "overlaps the link-local range 169.254.0.0/16"},
		{"{cidr: 192.0.2.1/32, blockSize: 32}", "", ""},
		{"{cidr: 'fd00:10:244::/56'}", "", ""},
		{"{cidr: '2001:db8::/122'}", "", ""},
		{"{cidr: '2001:db8::1/128', blockSize: 128}", "", ""},
		{"{}", "spec.cidr", "is missing"},
		{"{cidr: null}", "spec.cidr", "is missing"},
		{"{cidr: ''}", "spec.cidr", "must be a CIDR"},
		{"{cidr: 10.244.0.0}", "spec.cidr", `"10.244.0.0" must be a CIDR`},
		{"{cidr: 10.244.0.0/33}", "spec.cidr", "must be a CIDR"},
		{"{cidr: 10.244.0.0/-1}", "spec.cidr", "must be a CIDR"},
		{"{cidr: 10.244.0/16}", "spec.cidr", "must be a CIDR"},
		{"{cidr: 10.244.0.0/016}", "spec.cidr", "must be a CIDR"},
		{"{cidr: 010.244.0.0/16}", "spec.cidr", "must be a CIDR"},
		{"{cidr: 10.244.0.0/255.255.0.0}", "spec.cidr", "must be a CIDR"},
		{"{cidr: ' 10.244.0.0/16'}", "spec.cidr", "must be a CIDR"},
		{`{cidr: "10.244.0.0/16\n"}`, "spec.cidr", "must be a CIDR"},
		{"{cidr: 'fd00::/129'}", "spec.cidr", "must be a CIDR"},
		{"{cidr: 'fd00::%eth0/64'}", "spec.cidr", "must be a CIDR"},
		{"{cidr: '::ffff:10.0.0.0/104'}", "spec.cidr", "must be a CIDR"},
		{"{cidr: nonsense, blockSize: 5, ipipMode: Always}", "spec.cidr", "must be a CIDR"},
		{"{cidr: " + strings.Repeat("1", 44) + "}", "spec.cidr", "must be text"},
		{"{cidr: '" + strings.Repeat("1", 44) + "'}", "spec.cidr", "is too long"},
		{"{cidr: 10.244.0.1/16}", "spec.cidr", "write 10.244.0.0/16"},
		{"{cidr: 'fd00::1/64'}", "spec.cidr", "write fd00::/64"},
		{"{cidr: 'FD00::/64'}", "spec.cidr", "write fd00::/64"},
		{"{cidr: 'fd00:0:0:0::/64'}", "spec.cidr", "write fd00::/64"},
		{"{cidr: 'fd00:0010::/64'}", "spec.cidr", "write fd00:10::/64"},
		{"{cidr: 169.254.0.0/16}", "spec.cidr", "169.254.0.0/16"},
		{"{cidr: 169.254.1.0/24}", "spec.cidr", "169.254.0.0/16"},
		{"{cidr: 169.254.255.255/32, blockSize: 32}", "spec.cidr", "169.254.0.0/16"},
		{"{cidr: 168.0.0.0/6}", "spec.cidr", "169.254.0.0/16"},
		{"{cidr: 169.253.0.0/16}", "", ""},
		{"{cidr: 169.255.0.0/16}", "", ""},
		{"{cidr: 'fe80::/10'}", "spec.cidr", "fe80::/10"},
		{"{cidr: 'fe80::/64'}", "spec.cidr", "fe80::/10"},
		{"{cidr: 'febf:ffff::/64'}", "spec.cidr", "fe80::/10"},
		{"{cidr: 'fe00::/7'}", "spec.cidr", "fe80::/10"},
		{"{cidr: 'fec0::/10'}", "", ""},
		{"{cidr: 'fe00::/9'}", "", ""},
		{"{cidr: '::/0', disabled: true}", "spec.cidr", "fe80::/10"},
		{"{cidr: 10}", "spec.cidr", "must be text, not a whole number"},
		{"{cidr: [10.244.0.0/16]}", "spec.cidr", "must be text, not a list"},

		// Blocks.
		{"{cidr: 10.244.0.0/16, blockSize: 0}", "", ""},
		{"{cidr: 10.244.0.0/16, blockSize: 20}", "", ""},
		{"{cidr: 10.244.0.0/16, blockSize: 32}", "", ""},
		{"{cidr: 10.244.0.0/16, blockSize: 26.0}", "", ""},
		{"{cidr: 10.244.0.0/16, blockSize: 19}", "spec.blockSize", "must be 20 to 32 for IPv4"},
		{"{cidr: 10.244.0.0/16, blockSize: 33}", "spec.blockSize", "20 to 32"},
		{"{cidr: 10.244.0.0/16, blockSize: -1}", "spec.blockSize", "20 to 32"},
		{"{cidr: 10.244.0.0/16, blockSize: 122}", "spec.blockSize", "20 to 32"},
		{"{cidr: 10.244.0.0/28, blockSize: 19}", "spec.blockSize", "20 to 32"},
		{"{cidr: 'fd00::/64', blockSize: 116}", "", ""},
		{"{cidr: 'fd00::/64', blockSize: 128}", "", ""},
		{"{cidr: 'fd00::/64', blockSize: 115}", "spec.blockSize", "116 to 128"},
		{"{cidr: 'fd00::/64', blockSize: 129}", "spec.blockSize", "116 to 128"},
		{"{cidr: 'fd00::/64', blockSize: 26}", "spec.blockSize", "116 to 128"},
		{"{cidr: 10.244.0.0/26}", "", ""},
		{"{cidr: 10.244.0.0/27}", "spec.blockSize", "the default block, /26, is larger than the pool 10.244.0.0/27; set blockSize to 27 or more"},
		{"{cidr: 10.244.0.0/28, blockSize: 0}", "spec.blockSize", "set blockSize to 28"},
		{"{cidr: 10.244.0.0/28, blockSize: 27}", "spec.blockSize", "a block of this size is larger than the pool 10.244.0.0/28; set blockSize to 28"},
		{"{cidr: 10.244.0.0/28, blockSize: 28}", "", ""},
		{"{cidr: 10.244.0.0/28, disabled: true}", "", ""},
		{"{cidr: 10.244.0.0/28, blockSize: 24, disabled: true}", "", ""},
		{"{cidr: 10.244.0.0/28, blockSize: 12, disabled: true}", "spec.blockSize", "20 to 32"},
		{"{cidr: 'fd00::/123'}", "spec.blockSize", "the default block, /122, is larger than the pool fd00::/123; set blockSize to 123"},
		{"{cidr: 'fd00::/122'}", "", ""},
		{"{cidr: 'fd00::/124', blockSize: 124}", "", ""},
		{"{cidr: 'fd00::/124', disabled: true}", "", ""},
		{"{cidr: 10.244.0.0/16, blockSize: '26'}", "spec.blockSize", "must be a whole number, not text"},
		{"{cidr: 10.244.0.0/16, blockSize: 26.5}", "spec.blockSize", "must be a whole number, not a fraction"},
		{"{cidr: 10.244.0.0/16, blockSize: 1e30}", "spec.blockSize", ""},
		{"{cidr: 10.244.0.0/16, blockSize: 99999999999}", "spec.blockSize", "20 to 32"},
		{"{cidr: 10.244.0.0/16, blockSize: true}", "spec.blockSize", "not true or false"},

		// Encapsulation.
		{"{cidr: 10.244.0.0/16, vxlanMode: Never, ipipMode: Never}", "", ""},
		{"{cidr: 10.244.0.0/16, vxlanMode: CrossSubnet}", "", ""},
		{"{cidr: 10.244.0.0/16, vxlanMode: Always, ipipMode: Never}", "", ""},
		{"{cidr: 10.244.0.0/16, ipipMode: Always}", "", ""},
		{"{cidr: 'fd00::/64', vxlanMode: Always}", "", ""},
		{"{cidr: 'fd00::/64', ipipMode: Never}", "", ""},
		{"{cidr: 10.244.0.0/16, vxlanMode: Always, ipipMode: Always}", "spec.vxlanMode", "exclude each other"},
		{"{cidr: 10.244.0.0/16, vxlanMode: CrossSubnet, ipipMode: Always}", "spec.vxlanMode", "exclude each other"},
		{"{cidr: 'fd00::/64', ipipMode: Always}", "spec.ipipMode", "IPv4 only"},
		{"{cidr: 'fd00::/64', ipipMode: CrossSubnet}", "spec.ipipMode", "IPv4 only"},
		{"{cidr: 'fd00::/64', ipipMode: CrossSubnet, vxlanMode: Always}", "spec.ipipMode", "IPv4 only"},
		{"{cidr: 10.244.0.0/16, vxlanMode: always}", "spec.vxlanMode", `"always" is not one of the values it can have: Never, Always, CrossSubnet`},
		{"{cidr: 10.244.0.0/16, vxlanMode: ''}", "spec.vxlanMode", "Never, Always, CrossSubnet"},
		{"{cidr: 10.244.0.0/16, ipipMode: Off, vxlanMode: Always}", "spec.ipipMode", "Never, Always, CrossSubnet"},
		{"{cidr: 10.244.0.0/16, ipipMode: off}", "spec.ipipMode", "Never, Always, CrossSubnet"},
		{"{cidr: 10.244.0.0/16, ipipMode: 1}", "spec.ipipMode", "1 is not one of the values it can have"},

		// Switches.
		{"{cidr: 10.244.0.0/16, natOutgoing: true, disabled: false, disableBGPExport: true}", "", ""},
		{"{cidr: 10.244.0.0/16, natOutgoing: 'true'}", "spec.natOutgoing", "must be true or false, not text"},
		{"{cidr: 10.244.0.0/16, natOutgoing: 1}", "spec.natOutgoing", "must be true or false"},
		{"{cidr: 10.244.0.0/16, disabled: yes please}", "spec.disabled", "must be true or false"},
		{"{cidr: 10.244.0.0/16, disableBGPExport: {}}", "spec.disableBGPExport", "must be true or false"},
		{"{cidr: 10.244.0.0/16, natOutgoing: null}", "", ""},

		// Uses.
		{"{cidr: 10.244.0.0/16, allowedUses: [Workload, Tunnel]}", "", ""},
		{"{cidr: 10.244.0.0/16, allowedUses: []}", "", ""},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer]}", "", ""},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], vxlanMode: Never, ipipMode: Never}", "", ""},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], namespaceSelector: has(a)}", "", ""},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: all()}", "", ""},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: has(a)}", "spec.nodeSelector", "belong to no node"},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], nodeSelector: (}", "spec.nodeSelector", "belong to no node"},
		{"{cidr: 10.244.0.0/16, allowedUses: [Tunnel], namespaceSelector: (}", "spec.namespaceSelector", "tunnels"},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer, Workload]}", "spec.allowedUses", "stands alone"},
		{"{cidr: 10.244.0.0/16, allowedUses: [Tunnel, LoadBalancer]}", "spec.allowedUses", "stands alone"},
		{"{cidr: 10.244.0.0/16, allowedUses: [Workload, Tunnel, LoadBalancer]}", "spec.allowedUses", "stands alone"},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer, Workload], vxlanMode: Always}", "spec.allowedUses", "stands alone"},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], vxlanMode: Always}", "spec.vxlanMode", "never encapsulated"},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer], ipipMode: CrossSubnet}", "spec.ipipMode", "never encapsulated"},
		{"{cidr: 'fd00::/64', allowedUses: [LoadBalancer], ipipMode: Always}", "spec.ipipMode", "IPv4 only"},
		{"{cidr: 10.244.0.0/16, allowedUses: [Workload, Workload]}", "spec.allowedUses[1]", `"Workload" stands more than once`},
		{"{cidr: 10.244.0.0/16, allowedUses: [LoadBalancer, LoadBalancer]}", "spec.allowedUses[1]", "more than once"},
		{"{cidr: 10.244.0.0/16, allowedUses: [workload]}", "spec.allowedUses[0]", "Workload, Tunnel, LoadBalancer"},
		{"{cidr: 10.244.0.0/16, allowedUses: [Workload, HostSecondary]}", "spec.allowedUses[1]", "Workload, Tunnel, LoadBalancer"},
		{"{cidr: 10.244.0.0/16, allowedUses: Workload}", "spec.allowedUses", "must be a list, not text"},
		{"{cidr: 10.244.0.0/16, allowedUses: [Workload, 3]}", "spec.allowedUses[1]", "Workload, Tunnel"},
		{"{cidr: 10.244.0.0/16, allowedUses: [Workload, null]}", "spec.allowedUses[1]", "Workload, Tunnel"},

		// Selectors.
		{"{cidr: 10.244.0.0/16, nodeSelector: all()}", "", ""},
		{"{cidr: 10.244.0.0/16, nodeSelector: ''}", "", ""},
		{"{cidr: 10.244.0.0/16, nodeSelector: 'zone in {\"a\", \"b\"} && !has(gpu)'}", "", ""},
		{"{cidr: 10.244.0.0/16, nodeSelector: zone = 'a'}", "spec.nodeSelector", "at character 6"},
		{"{cidr: 10.244.0.0/16, nodeSelector: '(has(a)'}", "spec.nodeSelector", "at character 8: expected &&, || or ), found the end"},
		{"{cidr: 10.244.0.0/16, nodeSelector: global()}", "spec.nodeSelector", "use all()"},
		{"{cidr: 10.244.0.0/16, nodeSelector: '!global() || has(a)'}", "spec.nodeSelector", "use all()"},
		{"{cidr: 10.244.0.0/16, nodeSelector: \"a == 'global()'\"}", "", ""},
		{"{cidr: 10.244.0.0/16, nodeSelector: {matchLabels: {a: b}}}", "spec.nodeSelector", "must be text, not a mapping"},
		{"{cidr: 10.244.0.0/16, nodeSelector: \"a == '" + long + "'\"}", "", ""},
		{"{cidr: 10.244.0.0/16, nodeSelector: \"a == 'x" + long + "'\"}", "spec.nodeSelector", "is too long"},
		{"{cidr: 10.244.0.0/16, nodeSelector: \"a == 'ä" + long[1:] + "'\"}", "spec.nodeSelector", "at most 16384 bytes"},
		{"{cidr: 10.244.0.0/16, namespaceSelector: team == 'a'}", "", ""},
		{"{cidr: 10.244.0.0/16, namespaceSelector: team == 'a', allowedUses: []}", "", ""},
		{"{cidr: 10.244.0.0/16, namespaceSelector: team == 'a', allowedUses: [Workload]}", "", ""},
		{"{cidr: 10.244.0.0/16, namespaceSelector: '', allowedUses: [Workload, Tunnel]}", "", ""},
		{"{cidr: 10.244.0.0/16, namespaceSelector: team == 'a', allowedUses: [Workload, Tunnel]}", "spec.namespaceSelector", "remove namespaceSelector, or Tunnel"},
		{"{cidr: 10.244.0.0/16, namespaceSelector: all(), allowedUses: [Tunnel]}", "spec.namespaceSelector", "remove namespaceSelector, or Tunnel"},
		{"{cidr: 10.244.0.0/16, namespaceSelector: team is a}", "spec.namespaceSelector", "at character 6"},
		{"{cidr: 10.244.0.0/16, namespaceSelector: global()}", "spec.namespaceSelector", "use all()"},

		// Assignment.
		{"{cidr: 10.244.0.0/16, assignmentMode: Automatic}", "", ""},
		{"{cidr: 10.244.0.0/16, assignmentMode: Manual}", "", ""},
		{"{cidr: 10.244.0.0/16, assignmentMode: manual}", "spec.assignmentMode", "Automatic, Manual"},

		// Fields that do not exist.
		{"{cidr: 10.244.0.0/16, natOutGoing: true}", "spec.natOutGoing", "did you mean natOutgoing?"},
		{"{cidr: 10.244.0.0/16, nat-outgoing: true}", "spec.nat-outgoing", "did you mean natOutgoing?"},
		{"{CIDR: 10.244.0.0/16}", "spec.CIDR", "did you mean cidr?"},
		{"{cidr: 10.244.0.0/28, blocksize: 28}", "spec.blocksize", "did you mean blockSize?"},
		{"{cidr: 10.244.0.0/16, ipip: {mode: always}}", "spec.ipip", ""},
		{"{cidr: 10.244.0.0/16, colour: blue}", "spec.colour", "use one of allowedUses, assignmentMode, blockSize"},
		{"{cidr: 10.244.0.0/16, " + strings.Repeat("x", 500) + ": blue}", "spec." + strings.Repeat("x", 59) + "...", "no field"},
		{"{cidr: 10.244.0.0/16, colour: null}", "", ""},
		{"text", "spec", "must be a mapping of fields to values, not text"},
		{"[]", "spec", "must be a mapping of fields to values, not a list"},
		{"null", "spec", "is missing"},
	} {
		run(t, pool(test.spec), v.Create, test.field, test.message)
		// Calico's own form means the same.
		stored := strings.Replace(pool(test.spec), "projectcalico.org/v3", "crd.projectcalico.org/v1", 1)
		run(t, stored, v.Create, test.field, test.message)
		// What is wrong at first is wrong later; the old object is of the same family where it can be.
		old := decode(t, pool(test.spec))
		run(t, pool(test.spec), func(obj map[string]any) []model.Fault { return v.Update(obj, old) }, test.field, test.message)
	}
}

func TestUpdatePool(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, test := range []struct{ old, new, field, message string }{
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, natOutgoing: true, disabled: true}", "", ""},
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, vxlanMode: Always}", "", ""},
		{"{cidr: 10.0.0.0/16, nodeSelector: has(a)}", "{cidr: 10.0.0.0/16}", "", ""},

		{"{cidr: 10.0.0.0/16}", "{cidr: 10.1.0.0/16}", "spec.cidr", "cannot change from 10.0.0.0/16; delete"},
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/15}", "spec.cidr", "cannot change"},
		{"{cidr: 10.0.0.0/16}", "{cidr: 'fd00::/64'}", "spec.cidr", "cannot change"},
		{"{cidr: 10.0.0.0/16, blockSize: 24}", "{cidr: 'fd00::/64', blockSize: 120}", "spec.cidr", "cannot change"},
		{"{cidr: 10.0.0.0/16, disabled: true}", "{cidr: 10.1.0.0/16, disabled: true}", "spec.cidr", "cannot change"},
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/33}", "spec.cidr", "must be a CIDR"},
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.1/16}", "spec.cidr", "canonical"},
		{"{cidr: 10.0.0.0/16}", "{}", "spec.cidr", "is missing"},
		// A server that did not ask for it may have stored another form of the same range.
		{"{cidr: 10.0.0.1/16}", "{cidr: 10.0.0.0/16}", "", ""},
		{"{cidr: 'FD00::/64'}", "{cidr: 'fd00::/64'}", "", ""},

		{"{cidr: 10.0.0.0/16, blockSize: 24}", "{cidr: 10.0.0.0/16, blockSize: 25}", "spec.blockSize", "cannot change"},
		{"{cidr: 10.0.0.0/16, blockSize: 24}", "{cidr: 10.0.0.0/16}", "spec.blockSize", "cannot change"},
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, blockSize: 24}", "spec.blockSize", "cannot change"},
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, blockSize: 26}", "", ""},
		{"{cidr: 10.0.0.0/16, blockSize: 26}", "{cidr: 10.0.0.0/16}", "", ""},
		{"{cidr: 10.0.0.0/16, blockSize: 26}", "{cidr: 10.0.0.0/16, blockSize: 0}", "", ""},
		{"{cidr: 10.0.0.0/16, blockSize: 0}", "{cidr: 10.0.0.0/16, blockSize: 27}", "spec.blockSize", "cannot change"},
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, blockSize: 33}", "spec.blockSize", "20 to 32"},
		{"{cidr: 'fd00::/64'}", "{cidr: 'fd00::/64', blockSize: 122}", "", ""},
		{"{cidr: 'fd00::/64'}", "{cidr: 'fd00::/64', blockSize: 121}", "spec.blockSize", "cannot change"},
		{"{cidr: 'fd00::/64', blockSize: 120}", "{cidr: 'fd00::/64'}", "spec.blockSize", "cannot change"},
		{"{cidr: 10.0.0.0/28, disabled: true}", "{cidr: 10.0.0.0/28}", "spec.blockSize", "larger than the pool"},
		{"{cidr: 10.0.0.0/28, blockSize: 28}", "{cidr: 10.0.0.0/28, blockSize: 28, disabled: true}", "", ""},

		{"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], disabled: true}", "", ""},
		{"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: [Workload]}", "spec.allowedUses", "stays one"},
		{"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: []}", "spec.allowedUses", "stays one"},
		{"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16}", "spec.allowedUses", "stays one"},
		{"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Workload]}", "spec.allowedUses", "stands alone"},
		{"{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: [loadbalancer]}", "spec.allowedUses[0]", "Workload, Tunnel, LoadBalancer"},
		{"{cidr: 10.0.0.0/16, allowedUses: [Workload]}", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "", ""},
		{"{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, allowedUses: [Tunnel]}", "", ""},
		{"{cidr: 10.0.0.0/16, namespaceSelector: has(a)}", "{cidr: 10.0.0.0/16, namespaceSelector: has(a), allowedUses: [Tunnel]}", "spec.namespaceSelector", "tunnels"},
	} {
		old := decode(t, pool(test.old))
		update := func(obj map[string]any) []model.Fault { return v.Update(obj, old) }
		t.Run("", func(t *testing.T) {
			run(t, pool(test.new), update, test.field, test.message)
			if t.Failed() {
				t.Logf("the old spec is %s", test.old)
			}
		})
		stored := strings.Replace(pool(test.old), "projectcalico.org/v3", "crd.projectcalico.org/v1", 1)
		old = decode(t, stored)
		run(t, pool(test.new), update, test.field, test.message)
	}
}
