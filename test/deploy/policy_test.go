package deploy

import (
	"strings"
	"testing"

	celgo "github.com/google/cel-go/cel"
	policyv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"

	"github.com/sallyport/sallyport/internal/controller"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/yaml"
	"github.com/sallyport/sallyport/test/chart"
)

// expression is one of a policy's, with the name of a variable.
type expression struct {
	name, text string
	results    []*celgo.Type
}

func (e expression) GetName() string            { return e.name }
func (e expression) GetExpression() string      { return e.text }
func (e expression) ReturnTypes() []*celgo.Type { return e.results }

// policy is a ValidatingAdmissionPolicy, compiled as the oldest API server that is supported compiles it.
type policy struct {
	object                      policyv1.ValidatingAdmissionPolicy
	conditions, checks, sayings plugincel.ConditionEvaluator
}

// compilePolicy compiles the policy of a name among those that the chart makes.
func compilePolicy(t *testing.T, all []chart.Object, name string) *policy {
	t.Helper()
	p := &policy{object: as[policyv1.ValidatingAdmissionPolicy](t, named(t, all, "ValidatingAdmissionPolicy", name))}
	// What 1.31 knows, as a policy that is new to it.
	compiler, err := plugincel.NewCompositedCompiler(environment.MustBaseEnvSet(version.MajorMinor(1, 31)))
	if err != nil {
		t.Fatal(err)
	}
	anything, truth, words := []*celgo.Type{celgo.AnyType, celgo.DynType}, []*celgo.Type{celgo.BoolType}, []*celgo.Type{celgo.StringType}
	options := plugincel.OptionalVariableDeclarations{HasAuthorizer: false}
	for _, v := range p.object.Spec.Variables {
		r := compiler.CompileAndStoreVariable(expression{v.Name, v.Expression, anything}, options, environment.NewExpressions)
		if r.Error != nil {
			t.Fatalf("%s: variable %s: %v", name, v.Name, r.Error)
		}
	}
	var conditions, checks, sayings []plugincel.ExpressionAccessor
	for _, c := range p.object.Spec.MatchConditions {
		conditions = append(conditions, expression{text: c.Expression, results: truth})
	}
	for _, v := range p.object.Spec.Validations {
		checks = append(checks, expression{text: v.Expression, results: truth})
		sayings = append(sayings, expression{text: v.MessageExpression, results: words})
	}
	compile := func(all []plugincel.ExpressionAccessor) plugincel.ConditionEvaluator {
		c := compiler.CompileCondition(all, options, environment.NewExpressions)
		for _, err := range c.CompilationErrors() {
			t.Errorf("%s: %v", name, err)
		}
		return c
	}
	p.conditions, p.checks, p.sayings = compile(conditions), compile(checks), compile(sayings)
	if t.Failed() {
		t.FailNow()
	}
	return p
}

// request is what an account asks of the API server; the operation follows from the objects.
type request struct {
	account, node    string // node is "" for a token that names none
	resource         schema.GroupVersionResource
	object, oldValue string // YAML
}

const (
	agentAccount      = "system:serviceaccount:sallyport-system:sallyport-agent"
	controllerAccount = "system:serviceaccount:sallyport-system:sallyport-controller"
)

// judges asks a policy about the request of a client, which does what its name says, and compares the answer.
func (p *policy) judges(t *testing.T, name string, r request, want string) {
	t.Helper()
	if got := p.ask(t, r); got != want {
		t.Errorf("a client that %s is told %q, want %q", name, got, want)
	}
}

// ask returns what the policy says against a request: "" if it lets it pass.
func (p *policy) ask(t *testing.T, r request) string {
	t.Helper()
	info := &user.DefaultInfo{Name: r.account}
	if r.node != "" {
		info.Extra = map[string][]string{"authentication.kubernetes.io/node-name": {r.node}}
	}
	object, old := manifest(t, r.object), manifest(t, r.oldValue)
	operation, named := admission.Update, object
	var newObject, oldObject runtime.Object // nil, and not a nil pointer, where there is none
	attributes := &admission.VersionedAttributes{}
	if object != nil {
		newObject = object
		attributes.VersionedObject.Set(object)
	} else {
		operation, named = admission.Delete, old
	}
	if old != nil {
		oldObject = old
		attributes.VersionedOldObject.Set(old)
	} else {
		operation = admission.Create
	}
	kind := named.GroupVersionKind()
	attributes.VersionedKind = kind
	attributes.Attributes = admission.NewAttributesRecord(newObject, oldObject, kind, "", named.GetName(), r.resource, "", operation, nil, false, info)
	asked := plugincel.CreateAdmissionRequest(attributes.Attributes, metav1.GroupVersionResource(r.resource), metav1.GroupVersionKind(kind))
	evaluate := func(c plugincel.ConditionEvaluator) []plugincel.EvaluationResult {
		results, _, err := c.ForInput(t.Context(), attributes, asked, plugincel.OptionalVariableBindings{}, nil, celconfig.RuntimeCELCostBudget)
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range results {
			if result.Error != nil {
				t.Fatalf("%s: %v", result.ExpressionAccessor.GetExpression(), result.Error)
			}
		}
		return results
	}
	for _, c := range evaluate(p.conditions) {
		if c.EvalResult.Value() != true {
			return ""
		}
	}
	var said []string
	sayings := evaluate(p.sayings)
	for i, c := range evaluate(p.checks) {
		if c.EvalResult.Value() != true {
			said = append(said, sayings[i].EvalResult.Value().(string))
		}
	}
	return strings.Join(said, "; ")
}

func manifest(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	if text == "" {
		return nil
	}
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// policies returns the compiled policies of a set of values, and makes sure that each is bound and fails closed.
func policies(t *testing.T, values string, names ...string) map[string]*policy {
	t.Helper()
	all := chart.Render(t, valueSets[values]...)
	compiled, bound := map[string]*policy{}, 0
	for _, o := range all {
		switch o.Kind {
		case "ValidatingAdmissionPolicy":
			compiled[o.Metadata.Name] = compilePolicy(t, all, o.Metadata.Name)
			if f := compiled[o.Metadata.Name].object.Spec.FailurePolicy; f == nil || *f != policyv1.Fail {
				t.Errorf("%s lets pass what it cannot judge", o)
			}
		case "ValidatingAdmissionPolicyBinding":
			b := as[policyv1.ValidatingAdmissionPolicyBinding](t, o)
			if !has(all, "ValidatingAdmissionPolicy", b.Spec.PolicyName) || len(b.Spec.ValidationActions) != 1 || b.Spec.ValidationActions[0] != policyv1.Deny {
				t.Errorf("%s binds nothing, or denies nothing", o)
			}
			bound++
		}
	}
	if len(compiled) != len(names) || bound != len(names) {
		t.Fatalf("%s: %d policies and %d bindings, want %q", values, len(compiled), bound, names)
	}
	return compiled
}

// TestAgentWritesOwnSallyportNode has the policy judge what an agent may do to SallyportNodes.
func TestAgentWritesOwnSallyportNode(t *testing.T) {
	t.Parallel()
	const a = "apiVersion: sallyport.dev/v1alpha1\nkind: SallyportNode\nmetadata: {name: a}\nstatus: {version: '1'}\n"
	ready := strings.Replace(a, "'1'", "'2'", 1)
	const refused = "the agent of node b may not write the SallyportNode a, only that of its own node"
	tests := []struct {
		name string
		request
		says string
	}{
		{"creates its own", request{account: agentAccount, node: "a", object: a}, ""},
		{"changes its own", request{account: agentAccount, node: "a", object: ready, oldValue: a}, ""},
		{"creates another's", request{account: agentAccount, node: "b", object: a}, refused},
		{"changes another's", request{account: agentAccount, node: "b", object: ready, oldValue: a}, refused},
		{"deletes another's", request{account: agentAccount, node: "b", oldValue: a}, refused},
		{"has a token of no node", request{account: agentAccount, object: a},
			"the agent of no node (its token names none) may not write the SallyportNode a, only that of its own node"},
		{"is somebody else", request{account: controllerAccount, node: "b", object: a}, ""},
		{"is a person", request{account: "admin", oldValue: a}, ""},
	}
	p := policies(t, "default", "sallyport-agent-sallyportnodes", "sallyport-agent-leases", "sallyport-controller-leases")["sallyport-agent-sallyportnodes"]
	for _, tt := range tests {
		tt.resource = schema.GroupVersionResource{Group: "sallyport.dev", Version: "v1alpha1", Resource: "sallyportnodes"}
		p.judges(t, tt.name, tt.request, tt.says)
	}
}

// TestAgentRenewsOwnLease has the policy judge what an agent may do to Leases, under the names that agents use.
func TestAgentRenewsOwnLease(t *testing.T) {
	t.Parallel()
	lease := func(name string) string {
		return "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: " + name + ", namespace: sallyport-system}\nspec: {leaseDurationSeconds: 120}\n"
	}
	a, leader := lease(kube.LeaseOf("a")), lease("sallyport-controller")
	const refused = ", only that of its own node"
	long := strings.Repeat("a", 190) + "." + strings.Repeat("b", 60)
	other := strings.Repeat("a", 189) + "c." + strings.Repeat("b", 60)
	tests := []struct {
		name string
		request
		says string
	}{
		{"makes its own", request{account: agentAccount, node: "a", object: a}, ""},
		{"renews its own", request{account: agentAccount, node: "a", object: a, oldValue: a}, ""},
		{"makes another's", request{account: agentAccount, node: "b", object: a}, "the agent of node b may not write the Lease sallyport-node-a" + refused},
		{"renews another's", request{account: agentAccount, node: "b", object: a, oldValue: a}, "the agent of node b may not write the Lease sallyport-node-a" + refused},
		{"deletes another's", request{account: agentAccount, node: "b", oldValue: a}, "the agent of node b may not write the Lease sallyport-node-a" + refused},
		{"takes the controller's", request{account: agentAccount, node: "b", object: leader, oldValue: leader}, "the agent of node b may not write the Lease sallyport-controller" + refused},
		{"has a token of no node", request{account: agentAccount, object: a}, "the agent of no node (its token names none) may not write the Lease sallyport-node-a" + refused},
		{"has a long name", request{account: agentAccount, node: long, object: lease(kube.LeaseOf(long))}, ""},
		{"has a long name and takes another's", request{account: agentAccount, node: long, object: lease(kube.LeaseOf(other))}, "the agent of node " + long + " may not write the Lease " + kube.LeaseOf(other) + refused},
		{"is the controller", request{account: controllerAccount, object: leader}, ""},
	}
	p := policies(t, "default", "sallyport-agent-sallyportnodes", "sallyport-agent-leases", "sallyport-controller-leases")["sallyport-agent-leases"]
	for _, tt := range tests {
		tt.resource = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
		p.judges(t, tt.name, tt.request, tt.says)
	}
}

// TestControllerWritesOwnLeases has the policy judge what the controller may do to Leases of a namespace that others share.
func TestControllerWritesOwnLeases(t *testing.T) {
	t.Parallel()
	lease := func(name string) string {
		return "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: " + name + ", namespace: sallyport-system}\nspec: {leaseDurationSeconds: 120}\n"
	}
	own, node, foreign := lease(controller.LeaseName), lease(kube.LeaseOf(strings.Repeat("a", 253))), lease("kube-scheduler")
	const kept = ": it keeps sallyport-controller, and marks sallyport-node-*"
	tests := []struct {
		name string
		request
		says string
	}{
		{"makes its own", request{account: controllerAccount, object: own}, ""},
		{"renews its own", request{account: controllerAccount, object: own, oldValue: own}, ""},
		{"marks an agent's", request{account: controllerAccount, object: node, oldValue: node}, ""},
		{"makes an agent's", request{account: controllerAccount, object: lease("sallyport-node-a")}, "the controller of Sallyport may not CREATE the Lease sallyport-node-a" + kept},
		{"makes a third party's", request{account: controllerAccount, object: foreign}, "the controller of Sallyport may not CREATE the Lease kube-scheduler" + kept},
		{"takes a third party's", request{account: controllerAccount, object: foreign, oldValue: foreign}, "the controller of Sallyport may not UPDATE the Lease kube-scheduler" + kept},
		{"deletes a third party's", request{account: controllerAccount, oldValue: foreign}, "the controller of Sallyport may not DELETE the Lease kube-scheduler" + kept},
		{"is a third party", request{account: "system:kube-scheduler", object: foreign, oldValue: foreign}, ""},
	}
	p := policies(t, "default", "sallyport-agent-sallyportnodes", "sallyport-agent-leases", "sallyport-controller-leases")["sallyport-controller-leases"]
	for _, tt := range tests {
		tt.resource = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}
		p.judges(t, tt.name, tt.request, tt.says)
	}
}

// TestAgentTakesTaint has the policy judge what an agent may do to Nodes.
func TestAgentTakesTaint(t *testing.T) {
	t.Parallel()
	const node = `
apiVersion: v1
kind: Node
metadata: {name: a, resourceVersion: "1", uid: u, labels: {zone: one}, managedFields: [{manager: kubelet}]}
spec:
  podCIDR: 10.244.1.0/24
  taints: [{key: x, effect: NoSchedule}, {key: sallyport.dev/not-ready, effect: NoSchedule}, {key: y, effect: NoExecute, timeAdded: "2026-01-01T00:00:00Z"}]
status: {phase: Running}
`
	const ours, foreign = ", {key: sallyport.dev/not-ready, effect: NoSchedule}", "{key: x, effect: NoSchedule}, "
	with := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(node) }
	bare := "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n"
	only := bare + "spec:\n  taints: [{key: sallyport.dev/not-ready, effect: NoSchedule}]\n"
	const (
		elsewhere = "the agent of node b may not UPDATE the Node a, only take the taint sallyport.dev/not-ready from its own"
		change    = "the agent of node a may change nothing of the Node a but take the taint sallyport.dev/not-ready from it"
		taint     = "the agent of node a may take no taint but sallyport.dev/not-ready from the Node a, and set none"
	)
	tests := []struct {
		name string
		request
		says string
	}{
		{"takes the taint", request{node: "a", oldValue: node, object: with(ours, "", `"1"`, `"2"`, "kubelet", "sallyport")}, ""},
		{"takes the only taint", request{node: "a", oldValue: only, object: bare + "spec: {}\n"}, ""},
		{"takes the only taint, and the list", request{node: "a", oldValue: only, object: bare}, ""},
		{"changes nothing", request{node: "a", oldValue: node, object: node}, ""},
		{"takes another's", request{node: "b", oldValue: node, object: with(ours, "")}, elsewhere},
		{"takes a foreign taint", request{node: "a", oldValue: node, object: with(foreign, "")}, taint},
		{"takes all", request{node: "a", oldValue: node, object: with(foreign, "", ours, "")}, taint},
		{"changes a taint's effect", request{node: "a", oldValue: node, object: with(ours, strings.Replace(ours, "NoSchedule", "NoExecute", 1))}, taint},
		{"sets the taint", request{node: "a", oldValue: with(ours, ""), object: node}, taint},
		{"sets a foreign taint", request{node: "a", oldValue: with(foreign, ""), object: node}, taint},
		{"labels", request{node: "a", oldValue: node, object: with("zone: one", "zone: two", ours, "")}, change},
		{"annotates", request{node: "a", oldValue: node, object: with("uid: u", "uid: u, annotations: {n: x}")}, change},
		{"takes the labels", request{node: "a", oldValue: node, object: with(" labels: {zone: one},", "")}, change},
		{"cordons", request{node: "a", oldValue: node, object: with("  podCIDR", "  unschedulable: true\n  podCIDR")}, change},
		{"changes the podCIDR", request{node: "a", oldValue: node, object: with("10.244.1", "10.244.2")}, change},
		{"takes the podCIDR", request{node: "a", oldValue: node, object: with("  podCIDR: 10.244.1.0/24\n", "")}, change},
		{"deletes its node", request{node: "a", oldValue: node},
			"the agent of node a may not DELETE the Node a, only take the taint sallyport.dev/not-ready from its own"},
		{"creates a node", request{node: "a", object: node},
			"the agent of node a may not CREATE the Node a, only take the taint sallyport.dev/not-ready from its own"},
		{"is the kubelet", request{account: "system:node:b", oldValue: node, object: with("one", "two")}, ""},
	}
	p := policies(t, "startup-taint", "sallyport-agent-sallyportnodes", "sallyport-agent-leases", "sallyport-controller-leases", "sallyport-agent-nodes")["sallyport-agent-nodes"]
	for _, tt := range tests {
		tt.resource = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
		if tt.account == "" {
			tt.account = agentAccount
		}
		p.judges(t, tt.name, tt.request, tt.says)
	}
}
