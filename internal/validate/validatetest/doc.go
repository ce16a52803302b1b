// Package validatetest holds what is right and what is wrong with resources, as one table for everybody who judges
// them: the tests of package validate, which judges in-process, and those against a real API server. Both must say
// the same, and blame the same field; where an API server cannot, the case says so, and why.
package validatetest

// Case is a part of a new object: its spec, or its metadata, in YAML.
type Case struct {
	Text    string
	Field   string // that is to blame, such as spec.cidr; empty where nothing is wrong
	Message string // a part of what package validate says
	Server  Server
}

// Update is a spec that is to replace another of the same object.
type Update struct {
	Old, New string
	Field    string
	Message  string
	Server   Server
}

// Server says in what an API server differs. The zero value: in nothing but its words.
type Server struct {
	Accepts bool   // where package validate blames Field
	Refuses bool   // where package validate finds nothing wrong: it blames Field of this struct
	Field   string // it blames this field instead, in a case that both refuse
	Why     string
}

// Reasons for differences that come more than once.
const (
	noSelectors  = "CEL cannot read selectors: the API server stores them as they are, and what uses them reports the fault"
	unchanged    = "the API server does not judge again a field that keeps its value"
	unknownFirst = "the API server looks for unknown fields first, and for no other fault where it finds one"
)

func right(text string) Case { return Case{Text: text} }

func wrong(text, field, message string) Case {
	return Case{Text: text, Field: field, Message: message}
}

// accepted says that an API server accepts what package validate refuses.
func (c Case) accepted(why string) Case {
	c.Server = Server{Accepts: true, Why: why}
	return c
}

// blames says that an API server blames another field.
func (c Case) blames(field, why string) Case {
	c.Server = Server{Field: field, Why: why}
	return c
}

// refused says that an API server refuses what package validate accepts.
func (c Case) refused(field, why string) Case {
	c.Server = Server{Refuses: true, Field: field, Why: why}
	return c
}

func rightAfter(oldSpec, newSpec string) Update { return Update{Old: oldSpec, New: newSpec} }

func wrongAfter(oldSpec, newSpec, field, message string) Update {
	return Update{Old: oldSpec, New: newSpec, Field: field, Message: message}
}

// accepted says that an API server accepts what package validate refuses.
func (u Update) accepted(why string) Update {
	u.Server = Server{Accepts: true, Why: why}
	return u
}

// Pool is an IPPool, named p, with a spec.
func Pool(spec string) string {
	return "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: p}, spec: " + spec + "}"
}

// Configuration is a NATConfiguration, named c, with a spec.
func Configuration(spec string) string {
	return "{apiVersion: sallyport.dev/v1alpha1, kind: NATConfiguration, metadata: {name: c}, spec: " + spec + "}"
}
