package validatetest

import (
	"fmt"
	"slices"
	"strings"
)

// Calico returns specs of new IPPools, and specs that replace others: the table by which Calico's definition and
// Sallyport's are compared. It is made of fields and values, always the same ones in the same order, and no case
// comes twice.
func Calico() (creations []string, updates [][2]string) {
	creations = slices.Concat(calicoRanges(), calicoBlocks(), calicoModes(), calicoUses(), calicoSelectors(), calicoScalars())
	slices.Sort(creations)
	return slices.Compact(creations), slices.Concat(calicoRangeUpdates(), calicoBlockUpdates(), calicoUseUpdates(), calicoOtherUpdates())
}

// spec joins fields; an empty one stands for a field that is absent.
func spec(fields ...string) string {
	return "{" + strings.Join(slices.DeleteFunc(fields, func(f string) bool { return f == "" }), ", ") + "}"
}

// quoted makes fields of a name and of texts.
func quoted(name string, values ...string) []string {
	var out []string
	for _, v := range values {
		out = append(out, fmt.Sprintf("%s: %q", name, v))
	}
	return out
}

// plain makes fields of a name and of values in YAML; the first is absent.
func plain(name string, values ...string) []string {
	out := []string{""}
	for _, v := range values {
		out = append(out, name+": "+v)
	}
	return out
}

func calicoRanges() []string {
	out := []string{"{}", "{cidr: null}", "{cidr: 10}", "{cidr: [10.0.0.0/16]}", "{cidr: {}}", "{cidr: true}"}
	for _, f := range quoted("cidr",
		"10.244.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "192.0.2.0/26", "192.0.2.0/27", "192.0.2.1/32", "255.255.255.0/24", "224.0.0.0/8",
		"127.0.0.0/8", "10.244.0.1/16", "10.244.0.0", "10.244.0.0/33", "10.244.0.0/-1", "10.244.0/16", "10.244.0.0/016",
		"010.244.0.0/16", "10.244.0.0/255.255.0.0", " 10.244.0.0/16", "10.244.0.0/16\n", "", "nonsense", strings.Repeat("1", 48),
		strings.Repeat("1", 49), "169.253.0.0/16", "169.254.0.0/16", "169.254.1.0/24", "169.255.0.0/16", "169.254.0.0/15", "168.0.0.0/6",
		"fd00:10:244::/56", "FD00:10:244::/56", "fd00:0010:0244::/56", "fd00:10:244:0::/56", "fd00:10:244:0:0:0:0:0/56",
		"fd00:0010:0244:0000:0000:0000:0000:0000/56", "fd00::0.0.0.0/64", "2001:db8::/122", "2001:db8::/123", "2001:db8::1/128",
		"fd00::1/64", "FD00::1/64", "fd00::/129", "fd00::%eth0/64", "::ffff:10.0.0.0/104", "::ffff:a00:0/104", "::/0", "::/1", "fe00::/7",
		"fe00::/9", "fe80::/10", "FE80::/64", "febf:ffff::/64", "fec0::/10", "ff00::/8") {
		out = append(out, spec(f), spec(f, "disabled: true"))
	}
	return out
}

func calicoBlocks() []string {
	var out []string
	for _, cidr := range []string{"10.0.0.0/16", "10.0.0.0/26", "10.0.0.0/28", "'fd00::/64'", "'fd00::/122'", "'FD00::/124'"} {
		for _, size := range plain("blockSize", "-1", "0", "1", "19", "20", "26", "27", "28", "32", "33", "115", "116", "122", "124", "128", "129") {
			for _, disabled := range plain("disabled", "true") {
				out = append(out, spec("cidr: "+cidr, size, disabled))
			}
		}
	}
	return out
}

func calicoModes() []string {
	modes := []string{"Never", "Always", "CrossSubnet", "''", "always"}
	var out []string
	for _, cidr := range []string{"10.0.0.0/16", "'fd00::/64'"} {
		for _, vxlan := range plain("vxlanMode", modes...) {
			for _, ipip := range plain("ipipMode", modes...) {
				out = append(out, spec("cidr: "+cidr, vxlan, ipip))
			}
		}
	}
	return out
}

func calicoUses() []string {
	uses := plain("allowedUses", "[]", "null", "[Workload]", "[Tunnel]", "[LoadBalancer]", "[Workload, Tunnel]", "[LoadBalancer, Workload]",
		"[LoadBalancer, Tunnel]", "[Workload, Tunnel, LoadBalancer]", "[Workload, Workload]", "[LoadBalancer, LoadBalancer]", "[workload]", "['']",
		"[HostSecondary]", "[null]", "Workload", "["+strings.Repeat("Workload, ", 10)+"Tunnel]")
	with := []string{"", "vxlanMode: Always", "ipipMode: CrossSubnet", "vxlanMode: Never, ipipMode: Never", "disableBGPExport: true",
		"disableBGPExport: false", "nodeSelector: ''", "nodeSelector: null", "nodeSelector: all()", "nodeSelector: has(a)",
		"namespaceSelector: ''", "namespaceSelector: all()", "namespaceSelector: has(a)", "assignmentMode: Manual", "natOutgoing: true"}
	var out []string
	for _, use := range uses {
		for _, field := range with {
			out = append(out, spec("cidr: 10.0.0.0/16", use, field))
		}
	}
	return out
}

func calicoSelectors() []string {
	values := []string{"", " ", "all()", "has(a)", "zone in {'a', 'b'} && !has(gpu)", "global()", "!global()", "global( )", "has(a) || global()",
		"a == 'global()'", "zone = 'a'", "(has(a)", "zone"}
	var out []string
	for _, name := range []string{"nodeSelector", "namespaceSelector"} {
		for _, f := range quoted(name, values...) {
			out = append(out, spec("cidr: 10.0.0.0/16", f))
		}
		for _, length := range []int{1024, 1025, 262144, 262145} {
			out = append(out, longSelector(name, length))
		}
		for _, f := range plain(name, "null", "5", "true", "[all()]", "{matchLabels: {a: b}}") {
			out = append(out, spec("cidr: 10.0.0.0/16", f))
		}
	}
	return out
}

func calicoScalars() []string {
	var fields []string
	for _, name := range []string{"natOutgoing", "disabled", "disableBGPExport"} {
		fields = append(fields, plain(name, "true", "false", "null", "'true'", "1", "[]", "{}")...)
	}
	fields = append(fields, plain("assignmentMode", "Automatic", "Manual", "''", "manual", "null", "1")...)
	fields = append(fields, plain("blockSize", "26.0", "26.5", "'26'", "true", "null", "99999999999")...)
	fields = append(fields, "ipip: {mode: Always}", "nat-outgoing: true", "natOutGoing: true", "colour: blue", "vxlanMode: null", "ipipMode: null", "ipipMode: Off")
	var out []string
	for _, f := range fields {
		out = append(out, spec("cidr: 10.0.0.0/16", f))
	}
	return out
}

// pairs are all updates from one of the old specs to one of the new.
func pairs(old, new []string) [][2]string {
	var out [][2]string
	for _, o := range old {
		for _, n := range new {
			out = append(out, [2]string{o, n})
		}
	}
	return out
}

// specs puts a CIDR before each field.
func specs(cidr string, fields []string) []string {
	var out []string
	for _, f := range fields {
		out = append(out, spec("cidr: "+cidr, f))
	}
	return out
}

func calicoRangeUpdates() [][2]string {
	all := []string{"{cidr: 10.0.0.0/16}", "{cidr: 10.1.0.0/16}", "{cidr: 10.0.0.0/15}", "{cidr: 'fd00::/64'}", "{cidr: 'FD00::/64'}",
		"{cidr: 'fd00:0:0:0::/64'}", "{cidr: 'fd01::/64'}"}
	return pairs(all, append(slices.Clone(all), "{}", "{cidr: 10.0.0.1/16}", "{cidr: 'FD00::1/64'}", "{cidr: nonsense}"))
}

func calicoBlockUpdates() [][2]string {
	out := slices.Concat(
		pairs(specs("10.0.0.0/16", plain("blockSize", "0", "24", "26")), specs("10.0.0.0/16", plain("blockSize", "null", "0", "24", "26", "27", "33"))),
		pairs(specs("'fd00::/64'", plain("blockSize", "0", "120", "122")), specs("'fd00::/64'", plain("blockSize", "0", "120", "122", "26"))))
	for _, o := range []string{"{cidr: 10.0.0.0/28, disabled: true}", "{cidr: 10.0.0.0/28, blockSize: 28}"} {
		out = append(out, pairs([]string{o}, []string{"{cidr: 10.0.0.0/28}", "{cidr: 10.0.0.0/28, blockSize: 28}", "{cidr: 10.0.0.0/28, blockSize: 28, disabled: true}"})...)
	}
	return out
}

func calicoUseUpdates() [][2]string {
	return pairs(specs("10.0.0.0/16", plain("allowedUses", "[]", "[Workload]", "[Tunnel]", "[Workload, Tunnel]", "[LoadBalancer]")),
		specs("10.0.0.0/16", plain("allowedUses", "[]", "[Workload]", "[Tunnel]", "[Workload, Tunnel]", "[LoadBalancer]", "[LoadBalancer, Workload]")))
}

func calicoOtherUpdates() [][2]string {
	var out [][2]string
	for _, values := range [][]string{
		plain("natOutgoing", "true", "false"), plain("disabled", "true", "false"), plain("disableBGPExport", "true"),
		plain("vxlanMode", "Never", "Always", "CrossSubnet"), plain("ipipMode", "Never", "Always"), plain("assignmentMode", "Automatic", "Manual"),
		plain("nodeSelector", "all()", "''", "has(a)"), plain("namespaceSelector", "all()", "has(a)"),
	} {
		list := specs("10.0.0.0/16", values)
		out = append(out, pairs(list, list)...)
	}
	return out
}
