// Package compile turns a snapshot of declared resources into the plan for one node.
//
// Everything that can be decided about a connection is decided here, once: drivers put a Plan into the
// kernel, and explain, status and metrics read the same Plan. The package is pure: no clock, no I/O, no
// logging; equal arguments give equal plans. Where only blocks have changed, Plan.Next gives the equal plan at a fraction of the cost.
package compile
