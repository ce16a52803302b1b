package validatetest

import "strings"

// Metadata is what stands under metadata in a new object of any kind.
func Metadata() []Case {
	long := func(n int) string { return strings.Repeat("x", n) }
	return []Case{
		right("{name: a}"),
		right("{name: my.pool-1.example}"),
		right("{name: " + long(253) + "}"),
		wrong("{name: "+long(254)+"}", "metadata.name", "at most 253"),
		wrong("{name: My_Pool}", "metadata.name", `"My_Pool" is not a name`),
		wrong("{name: -a}", "metadata.name", "is not a name"),
		wrong("{name: a..b}", "metadata.name", "is not a name"),
		wrong("{name: a/b}", "metadata.name", "is not a name"),
		wrong("{name: ''}", "metadata.name", "is missing"),
		wrong("{}", "metadata.name", "is missing"),
		wrong("null", "metadata.name", "is missing"),
		wrong("{generateName: a-}", "metadata.name", "is missing").accepted("the API server makes up a name"),
		wrong("{name: 5}", "metadata.name", "must be text"),
		wrong("text", "metadata", "must be a mapping"),
		wrong("[]", "metadata", "must be a mapping"),
		wrong("{name: a, namespace: default}", "metadata.namespace", "belongs to no namespace").accepted("the API server forgets the namespace of what belongs to none"),

		right("{name: a, labels: {zone: a, example.com/x_y.z: '', empty: ''}}"),
		right("{name: a, labels: {}}"),
		right("{name: a, labels: null}"),
		wrong("{name: a, labels: {'bad key': x}}", "metadata.labels", `"bad key" is not valid`),
		wrong("{name: a, labels: {a: 'bad value'}}", "metadata.labels", `"bad value" is not valid`),
		wrong("{name: a, labels: {a: "+long(64)+"}}", "metadata.labels", "63"),
		wrong("{name: a, labels: {"+long(64)+": a}}", "metadata.labels", "63"),
		wrong("{name: a, labels: {a: true}}", "metadata.labels", `the value of "a" must be text; put it in quotes`),
		wrong("{name: a, labels: {a: 1}}", "metadata.labels", "put it in quotes"),
		wrong("{name: a, labels: [a]}", "metadata.labels", "must be a mapping"),

		right("{name: a, annotations: {note: 'anything at all, and more'}}"),
		wrong("{name: a, annotations: {'bad key': x}}", "metadata.annotations", "is not valid"),
		wrong("{name: a, annotations: {a: 5}}", "metadata.annotations", "put it in quotes"),
		wrong("{name: a, annotations: {a: "+long(262144)+"}}", "metadata.annotations", "262144"),

		// What a server fills in.
		right("{name: a, uid: 3a2b, resourceVersion: '12', generation: 3, creationTimestamp: '2026-01-02T03:04:05Z', selfLink: /x}"),
		right("{name: a, creationTimestamp: null}"),
		right("{name: a, generateName: a-}"),
		right("{name: a, finalizers: [example.com/x]}"),
		right("{name: a, ownerReferences: [{apiVersion: v1, kind: Node, name: n1, uid: u}]}"),
		right("{name: a, managedFields: [{manager: kubectl, operation: Update, apiVersion: projectcalico.org/v3, fieldsType: FieldsV1, fieldsV1: {'f:spec': {}}}]}"),
		wrong("{name: a, ownerReferences: [{name: n}]}", "metadata.ownerReferences.name", "cannot be true or false"),
		wrong("{name: a, generation: many}", "metadata.generation", "cannot be text"),

		wrong("{name: a, lables: {a: b}}", "metadata.lables", "did you mean labels?"),
		wrong("{name: a, colour: blue}", "metadata.colour", "put it under labels or annotations"),
	}
}
