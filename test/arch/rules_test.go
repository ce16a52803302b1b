// Package arch holds the rules about who may import whom. They are ordinary tests: a new import that
// breaks one fails here, with the rule and the chain of imports that broke it.
//
// Only what is built into programs is judged; a test may import what it likes, but for YAML libraries.
package arch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// rule forbids some packages some imports.
type rule struct {
	says    string // the rule in words, for the message
	binds   func(path string) bool
	forbids func(from, to string) bool
	direct  bool // only a package's own imports count, not those of what it imports
}

// layers lists the packages of this module from the lowest to the highest. A package imports only
// packages of lower layers, and its own subpackages.
var layers = [][]string{
	{"api", "internal/cni", "internal/model", "internal/selector", "internal/text", "internal/waiting"},
	{"internal/yaml"},
	{"internal/compile", "internal/ipam", "internal/validate", "internal/manifest", "internal/lab", "internal/nfnetlink"},
	{"internal/diagnose", "internal/convert", "internal/nftables", "internal/rtnetlink", "internal/verify"},
	{"internal/datastore", "internal/reconcile", "internal/cniserver", "internal/cniinstall",
		"internal/driver/nat", "internal/driver/workload", "internal/driver/route", "internal/driver/bgp", "internal/driver/bpf",
		"internal/driver/hostaddr", "internal/driver/nodefacts", "internal/driver/foreign", "internal/driver/conntrack"},
	{"internal/workload"},
	{"internal/agent", "internal/controller"},
	{"internal/cli"},
	{"cmd/sallyport", "cmd/sallyport-cni"},
	{"internal/tools", "test"},
}

// layer returns the number of the layer of one of our packages and the unit in it that it belongs to, or
// -1 if it has none.
func layer(path string) (int, string) {
	for i, units := range layers {
		for _, unit := range units {
			if own(path, unit) {
				return i, unit
			}
		}
	}
	return -1, ""
}

// pure are the packages that decide: equal arguments give equal results.
var pure = []string{"internal/model", "internal/selector", "internal/compile", "internal/ipam", "internal/diagnose"}

// impure are the packages of the standard library that reach out of the program.
var impure = []string{"os", "net", "log", "syscall", "io/ioutil", "math/rand", "crypto/rand", "runtime/debug"}

// kubernetes are the trees of packages that know the Kubernetes API.
var kubernetes = []string{"k8s.io"}

// kubernetesClients are the ones that talk to an API server or hold the types of one's built-in kinds.
var kubernetesClients = []string{"k8s.io/client-go", "k8s.io/api"}

// heavy are the packages that hold, or import, the types of every kind that Kubernetes has, with what encodes, copies and
// registers each: a third of a program that has one of them, which asks for four of those kinds. What they do for us,
// internal/datastore/kube and internal/controller do with client-go's rest, dynamic and tools/cache.
var heavy = []string{
	"k8s.io/client-go/applyconfigurations", "k8s.io/client-go/discovery", "k8s.io/client-go/informers", "k8s.io/client-go/kubernetes",
	"k8s.io/client-go/listers", "k8s.io/client-go/tools/events", "k8s.io/client-go/tools/leaderelection", "k8s.io/client-go/tools/record",
	"k8s.io/apimachinery/pkg/util/strategicpatch", "sigs.k8s.io/controller-runtime",
}

// light are the packages of k8s.io/api that a program may have: Nodes, Leases, and what apiserver's CEL library refers to.
var light = []string{"k8s.io/api/core/v1", "k8s.io/api/coordination/v1", "k8s.io/api/authentication/v1"}

var netlink = []string{
	"github.com/google/nftables", "github.com/mdlayher/netlink", "github.com/vishvananda/netlink",
	"github.com/vishvananda/netns", "github.com/ti-mo/conntrack", "github.com/ti-mo/netfilter",
}

// yamlLibraries read and write YAML; a manifest must mean the same to all of ours, and what it means to kubectl.
var yamlLibraries = []string{"go.yaml.in/yaml", "gopkg.in/yaml.v2", "gopkg.in/yaml.v3", "sigs.k8s.io/yaml", "github.com/goccy/go-yaml"}

var rules = []rule{
	{
		says:  "imports point one way, from the program down to the model",
		binds: isOurs,
		forbids: func(from, to string) bool {
			if !isOurs(to) {
				return false
			}
			fromLayer, fromUnit := layer(from)
			toLayer, toUnit := layer(to)
			return fromUnit != toUnit && toLayer >= fromLayer
		},
		direct: true,
	},
	{
		says:  "drivers never import each other",
		binds: func(path string) bool { return own(path, "internal/driver") },
		forbids: func(from, to string) bool {
			_, fromUnit := layer(from)
			_, toUnit := layer(to)
			return own(to, "internal/driver") && fromUnit != toUnit
		},
	},
	{
		says:  "what decides is pure: no I/O, no clock, no chance, no logging",
		binds: func(path string) bool { return own(path, pure...) },
		forbids: func(_, to string) bool {
			return to != "net/netip" && within(to, impure...) || isOurs(to) && !own(to, pure...)
		},
		direct: true,
	},
	{
		says:    "what converts does no I/O",
		binds:   func(path string) bool { return own(path, "internal/convert") },
		forbids: func(_, to string) bool { return to != "net/netip" && within(to, impure...) },
		direct:  true,
	},
	{
		says: "only datastore/kube, controller and api import Kubernetes client packages",
		binds: func(path string) bool {
			return isOurs(path) && !own(path, "internal/datastore/kube", "internal/controller", "api", "test")
		},
		forbids: func(_, to string) bool { return within(to, kubernetesClients...) },
		direct:  true,
	},
	{
		says:    "only validate imports apiextensions-apiserver",
		binds:   func(path string) bool { return isOurs(path) && !own(path, "internal/validate") },
		forbids: func(_, to string) bool { return within(to, "k8s.io/apiextensions-apiserver") },
		direct:  true,
	},
	{
		says:    "drivers know nothing of Kubernetes",
		binds:   func(path string) bool { return own(path, "internal/driver") },
		forbids: func(_, to string) bool { return within(to, kubernetes...) },
	},
	{
		says:    "the CNI plugin is small: no Kubernetes and no HTTP, not even through another package",
		binds:   func(path string) bool { return own(path, "cmd/sallyport-cni", "internal/cni") },
		forbids: func(_, to string) bool { return within(to, kubernetes...) || to == "net/http" },
	},
	{
		says:    "the nftables engine knows no plan: of ours it imports nfnetlink alone",
		binds:   func(path string) bool { return own(path, "internal/nftables") },
		forbids: func(_, to string) bool { return isOurs(to) && !own(to, "internal/nftables", "internal/nfnetlink") },
	},
	{
		says: "only drivers, nftables, nfnetlink, rtnetlink, workload and lab touch netlink",
		binds: func(path string) bool {
			return isOurs(path) && !own(path, "internal/driver", "internal/nftables", "internal/nfnetlink", "internal/rtnetlink", "internal/workload", "internal/lab", "test")
		},
		forbids: func(_, to string) bool { return within(to, netlink...) },
		direct:  true,
	},
	{
		says:    "only the command line, which has the demo, and tests build a lab",
		binds:   func(path string) bool { return isOurs(path) && !own(path, "internal/cli", "internal/lab", "test") },
		forbids: func(_, to string) bool { return own(to, "internal/lab") },
		direct:  true,
	},
	{
		says:  "no program contains the types of all that Kubernetes has, which are a third of it",
		binds: func(path string) bool { return own(path, "cmd") },
		forbids: func(_, to string) bool {
			return within(to, heavy...) || within(to, "k8s.io/api") && !within(to, light...)
		},
	},
	{
		says:  "one package knows a YAML library: internal/yaml, go.yaml.in/yaml/v3",
		binds: isOurs,
		forbids: func(from, to string) bool {
			return within(to, yamlLibraries...) && !(own(from, "internal/yaml") && to == "go.yaml.in/yaml/v3")
		},
		direct: true,
	},
	{
		says:    "no program contains the testing package",
		binds:   func(path string) bool { return own(path, "cmd") },
		forbids: func(_, to string) bool { return to == "testing" },
	},
}

// check returns every breach of a rule.
func (r rule) check(g graph) []violation {
	var found []violation
	for _, from := range g.ours() {
		if !r.binds(from) {
			continue
		}
		chain := g.chain(from, r.direct, func(to string) bool { return r.forbids(from, to) })
		if chain != nil {
			found = append(found, violation{r.says, chain})
		}
	}
	return found
}

// checkLayers returns the packages that no layer holds: a new package is to be put into one.
func checkLayers(g graph) []string {
	var homeless []string
	for _, path := range g.ours() {
		if n, _ := layer(path); n < 0 {
			homeless = append(homeless, strings.TrimPrefix(path, module+"/"))
		}
	}
	return homeless
}

func TestImports(t *testing.T) {
	t.Parallel()
	g := load(t)
	for _, r := range rules {
		for _, v := range r.check(g) {
			t.Error(v)
		}
	}
	for _, path := range checkLayers(g) {
		t.Errorf("%s is in no layer: add it to layers in this file", path)
	}
	if len(g.ours()) < 5 {
		t.Errorf("only %d packages of ours were found; the test looks at nothing", len(g.ours()))
	}
}

// TestTestsReadYAMLAsWeDo: only the test that compares our reader with kubectl's has another one.
func TestTestsReadYAMLAsWeDo(t *testing.T) {
	t.Parallel()
	g := load(t)
	seen := 0
	for _, path := range g.ours() {
		for _, imported := range slices.Concat(g[path].TestImports, g[path].XTestImports) {
			if !within(imported, yamlLibraries...) {
				continue
			}
			if seen++; !own(path, "internal/yaml") {
				t.Errorf("a test of %s imports %s: read YAML with internal/yaml", path, imported)
			}
		}
	}
	if seen == 0 {
		t.Error("no test imports a YAML library, not even that of internal/yaml; the test looks at nothing")
	}
}

// TestImportRules breaks every rule in a made-up graph, to show that it would be noticed.
func TestImportRules(t *testing.T) {
	t.Parallel()
	tests := []struct {
		imports string // "a imports b imports c", in the short form of our paths
		breaks  string // the start of the rule that is broken; empty for none
	}{
		{"internal/cli imports internal/agent imports internal/driver/nat imports internal/compile imports internal/model", ""},
		{"internal/model imports internal/compile", "imports point one way"},
		{"internal/reconcile imports internal/driver/nat", "imports point one way"},
		{"internal/driver/nat imports internal/driver/nat/expr", ""},
		{"internal/driver/nat imports internal/driver/route", "drivers never import each other"},
		{"internal/driver/nat imports internal/lab imports internal/driver/route", "drivers never import each other"},
		{"internal/compile imports net/netip", ""},
		{"internal/compile imports net", "what decides is pure"},
		{"internal/model imports log/slog", "what decides is pure"},
		{"internal/compile imports internal/validate", "what decides is pure"},
		{"internal/compile imports go4.org/netipx imports os", ""},
		{"internal/convert imports internal/datastore/dir", "imports point one way"},
		{"internal/convert imports os", "what converts does no I/O"},
		{"internal/datastore/dir imports k8s.io/client-go/rest", "only datastore/kube, controller"},
		{"internal/datastore/kube imports k8s.io/client-go/rest", ""},
		{"internal/cli imports k8s.io/apiextensions-apiserver/pkg/apis", "only validate"},
		{"internal/driver/nat imports internal/validate imports k8s.io/apimachinery", "drivers know nothing"},
		{"cmd/sallyport-cni imports internal/cniserver imports k8s.io/apimachinery", "the CNI plugin"},
		{"internal/agent imports github.com/vishvananda/netlink", "only drivers, nftables, nfnetlink, rtnetlink, workload and lab"},
		{"cmd/sallyport-cni imports internal/cni imports net/http", "the CNI plugin"},
		{"internal/agent imports internal/driver/nat imports github.com/google/nftables", ""},
		{"internal/driver/nat imports internal/nftables imports internal/nfnetlink imports github.com/mdlayher/netlink", ""},
		{"internal/nftables imports internal/compile", "the nftables engine knows no plan"},
		{"internal/nfnetlink imports internal/nftables", "imports point one way"},
		{"internal/agent imports internal/lab", "only the command line"},
		{"internal/manifest imports internal/yaml imports go.yaml.in/yaml/v3", ""},
		{"internal/manifest imports go.yaml.in/yaml/v3", "one package knows a YAML library"},
		{"internal/yaml imports sigs.k8s.io/yaml", "one package knows a YAML library"},
		{"cmd/sallyport imports example.org/a imports testing", "no program contains the testing"},
		{"cmd/sallyport imports internal/cli imports internal/controller imports k8s.io/client-go/tools/leaderelection", "no program contains the types"},
		{"cmd/sallyport imports internal/cli imports internal/controller imports sigs.k8s.io/controller-runtime/pkg/client", "no program contains the types"},
		{"cmd/sallyport imports internal/cli imports internal/controller imports k8s.io/api/apps/v1", "no program contains the types"},
		{"cmd/sallyport imports internal/cli imports internal/controller imports k8s.io/api/core/v1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.imports, func(t *testing.T) {
			t.Parallel()
			g := madeUp(tt.imports)
			var broken []string
			for _, r := range rules {
				for _, v := range r.check(g) {
					broken = append(broken, v.String())
				}
			}
			all := strings.Join(broken, "\n")
			if tt.breaks == "" && all != "" || !strings.Contains(all, tt.breaks) {
				t.Errorf("broken: %q, want %q", all, tt.breaks)
			}
		})
	}
	if got := fmt.Sprint(checkLayers(madeUp("internal/novel imports os"))); got != "[internal/novel]" {
		t.Errorf("packages without a layer: %s, want [internal/novel]", got)
	}
}

// madeUp builds a graph from one chain of imports.
func madeUp(chain string) graph {
	g := graph{}
	paths := strings.Split(chain, " imports ")
	for i, path := range paths {
		paths[i] = path
		if within(path, "internal", "cmd", "api", "test") {
			paths[i] = module + "/" + path
		}
	}
	for i, path := range paths {
		p := pkg{ImportPath: path}
		if i+1 < len(paths) {
			p.Imports = paths[i+1 : i+2]
		}
		g[path] = p
	}
	return g
}
