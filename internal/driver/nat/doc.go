// Package nat holds the part of a plan that translates connections in the kernel's nf_tables.
//
// It promises that Apply changes the kernel in one transaction of differences, or not at all, but for two
// cases: where the kernel refuses both families at once, each is tried by itself (families.go); and a table
// that an agent left is taken over before its hooks change (owner.go). A value applied twice costs nothing the
// second time, and what the package says of the kernel was either acknowledged or read back by it. It owns the one table "inet sallyport", in which nothing of others
// is suffered, and never touches another table.
//
// The table, for a plan that translates to the interface's address, with ports set:
//
//	table inet sallyport {
//		set exempt4, exempt6    destinations that are never translated
//		set source4, source6    sources that are, each range with a counter
//		set guarded4, guarded6  the same, merged and without counters
//
//		chain postrouting       nat hook, just before srcnat: goto translate, if need be by out interface
//		chain translate         exempt destinations return; sources go to snat4 or snat6
//		chain snat4, snat6      masquerade or snat; a rule with ports for each protocol that has them
//
//		chain guard …           drops what should have been translated and was not (guard.go)
//	}
//
// Exemptions come first, so that the counter of a source range counts exactly the connections that are
// translated: a nat chain sees the first packet of a connection and no other.
//
// # How it is laid out
//
// What is wanted (layout.go, guard.go, rules.go, match.go) and what the kernel holds (read.go, parse.go, canon.go) are both
// a table, a plain value (table.go). diff.go compares two of them without I/O, batch.go writes the
// difference as netlink messages, conn.go carries them to the kernel (internal/nfnetlink), and
// driver.go decides when to do which. watch.go listens for what others do to the table where they can.
//
// # Invariants
//
//   - A range's start and end are added and deleted together, in one message: kernels check that an end
//     follows its own start, and each does it a little differently.
//   - The driver's state is either equal to the kernel as last confirmed, or dropped. Every error after
//     sending drops it, since the kernel may have committed all the same (ENOBUFS).
//   - Two replies to one request are never confused: every request has a sequence number of its own,
//     and answers to others are passed over.
package nat
