package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Bounds on what a request may hold.
const (
	maxName      = 255   // bytes of a name; CNI itself sets no bound
	maxInterface = 15    // bytes of a device's name in the kernel
	minMTU       = 68    // RFC 791, section 3.2
	minMTU6      = 1280  // RFC 8200, section 5
	maxMTU       = 65535 // of a veth
)

// ParseRequest reads the document of a request. It returns an *Error where that is not one.
func ParseRequest(doc []byte) (*Request, error) {
	// A request of another version may have fields that this one lacks.
	var spoken struct{ Version int }
	if err := json.Unmarshal(doc, &spoken); err != nil {
		return nil, &Error{Code: CodeFailed, Message: "reading the plugin's request", Details: err.Error()}
	}
	if spoken.Version != Version {
		return nil, &Error{Code: CodeProtocol, Message: fmt.Sprintf("the CNI plugin speaks version %d of the protocol, the Sallyport agent version %d: "+
			"install the plugin of the agent's version with sallyport install-cni", spoken.Version, Version)}
	}
	var r Request
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, &Error{Code: CodeFailed, Message: "reading the plugin's request", Details: err.Error()}
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, &Error{Code: CodeFailed, Message: "reading the plugin's request: more follows the document"}
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return &r, nil
}

// ParseAnswer reads the document of an answer. An unknown field is no error: an agent of another version must be able to
// say that it is one.
func ParseAnswer(doc []byte) (*Answer, error) {
	var a Answer
	if err := json.Unmarshal(doc, &a); err != nil {
		return nil, fmt.Errorf("reading the agent's answer: %w", err)
	}
	return &a, nil
}

// Validate says what is wrong with a request, as an *Error.
func (r *Request) Validate() error {
	if !slices.Contains([]string{Add, Del, Check, Status, GC}, r.Verb) {
		return invalid(CodeEnvironment, "CNI_COMMAND %q is not ADD, DEL, CHECK, STATUS or GC", r.Verb)
	}
	if err := nameError("name of the network", r.Network, CodeConfig); err != nil {
		return err
	}
	if r.Verb == Add || r.Verb == Del || r.Verb == Check {
		if err := attachmentError(r.ContainerID, r.Interface); err != nil {
			return err
		}
	}
	for _, a := range r.Attachments {
		if err := attachmentError(a.ContainerID, a.Interface); err != nil {
			return err
		}
	}
	for _, s := range []string{r.Namespace, r.Pod, r.UID} {
		if len(s) > maxName || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return invalid(CodeEnvironment, "CNI_ARGS names no pod: %q", s)
		}
	}
	if (r.Namespace == "") != (r.Pod == "") {
		return invalid(CodeEnvironment, "CNI_ARGS has one of K8S_POD_NAMESPACE and K8S_POD_NAME without the other")
	}
	return r.wantError()
}

// wantError judges what ADD is asked for.
func (r *Request) wantError() error {
	six := slices.Contains(r.Families, IPv6)
	for i, f := range r.Families {
		if f != IPv4 && f != IPv6 {
			return invalid(CodeConfig, "families: %q is neither %s nor %s", f, IPv4, IPv6)
		}
		if slices.Contains(r.Families[:i], f) {
			return invalid(CodeConfig, "families: %s is listed twice", f)
		}
	}
	for i, a := range r.Addresses {
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
			return invalid(CodeConfig, "the address %q that is asked for is not one of a pod", a)
		}
		if len(r.Families) > 0 && !slices.Contains(r.Families, familyOf(a)) {
			return invalid(CodeConfig, "the address %s is asked for, but families lacks %s", a, familyOf(a))
		}
		for _, b := range r.Addresses[:i] {
			if a.Is4() == b.Is4() {
				return invalid(CodeConfig, "the addresses %s and %s are asked for, but a pod has one %s address at most", b, a, familyOf(a))
			}
		}
		six = six || a.Is6()
	}
	least := minMTU
	if six {
		least = minMTU6
	}
	if r.MTU != 0 && (r.MTU < least || r.MTU > maxMTU) {
		return invalid(CodeConfig, "mtu: %d is not between %d and %d", r.MTU, least, maxMTU)
	}
	return nil
}

func familyOf(a netip.Addr) string {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// attachmentError judges as CNI's SPEC.md does, section 2, parameters.
func attachmentError(container, iface string) error {
	if err := nameError("CNI_CONTAINERID", container, CodeEnvironment); err != nil {
		return err
	}
	odd := func(c rune) bool { return c <= ' ' || c > '~' || c == '/' || c == ':' }
	if iface == "" || len(iface) > maxInterface || iface == "." || iface == ".." || strings.ContainsFunc(iface, odd) {
		return invalid(CodeEnvironment, "CNI_IFNAME %q is no name of an interface", iface)
	}
	return nil
}

// nameError is nil for a name of letters, digits, and from the second on "_", "." and "-".
func nameError(what, name string, code uint) error {
	for i, c := range []byte(name) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || i > 0 && (c == '_' || c == '.' || c == '-')) {
			return invalid(code, "%s: %q must have letters, digits, underscores, dots and hyphens alone, a letter or digit first", what, name)
		}
	}
	if name == "" || len(name) > maxName {
		return invalid(code, "%s: it must have 1 to %d characters, not %d", what, maxName, len(name))
	}
	return nil
}

func invalid(code uint, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
