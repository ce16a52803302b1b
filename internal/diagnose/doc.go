// Package diagnose says what on a node stands in the way of its plan: pools that overlap the node's own
// subnet, addresses that the node does not have, rules of others, forwarding that is off, a conntrack
// table that is full.
//
// It promises that equal facts give equal problems; that each problem names an object, what is wrong with
// it and a remedy; and that a problem is only ever reported for what was seen: what could not be read is a
// problem of its own. The facts are read by drivers. It does no I/O and changes nothing.
package diagnose
