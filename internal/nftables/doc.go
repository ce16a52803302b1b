// Package nftables makes tables of the kernel's nf_tables what they are declared to be. A table is a plain value
// (Table): chains with and without hooks, rules, and sets and maps with any key. An Engine keeps one such table, of
// family inet or netdev, by its name.
//
// It promises that Apply changes the kernel in one transaction of differences, or not at all, but for two
// cases: where the kernel refuses a table as a whole, its parts may be tried one by one (Part); and a table
// that an agent left is taken over before its hooks change (owner.go). A value applied twice costs no transaction the
// second time, and what the package says of the kernel was either acknowledged or read back by it. It owns the
// table of its name, in which nothing of others is left, and never touches another table. What a table is for, it
// does not know: drivers do.
//
// # How it is laid out
//
// A rule is made of terms (rule.go, match.go), a set of elements in rows of bytes (elements.go, types.go). What is
// wanted and what the kernel holds (read.go, reading.go, parse.go, canon.go) are both a Table (table.go). diff.go
// compares two of them without I/O, batch.go writes the difference as netlink messages, conn.go carries them to the
// kernel (internal/nfnetlink), and engine.go decides when to do which. counts.go and tally.go follow what elements
// and rules count, preview.go and text.go say it for people, and watch.go listens for what others do to the table
// where they can.
//
// # Invariants
//
//   - A range's start and end are added and deleted together, in one message: kernels check that an end
//     follows its own start, and each does it a little differently.
//   - What something refers to is there before it and goes after it: in one transaction come the rules, elements, sets
//     and chains that go, in this order, then the chains, sets, elements, chains with hooks and rules that come.
//     What has not changed, and refers to nothing that was replaced, stays as it is.
//   - The engine's state is either equal to the kernel as last confirmed, or dropped. Every error after
//     sending drops it, since the kernel may have committed all the same (ENOBUFS).
//   - Two replies to one request are never confused: every request has a sequence number of its own,
//     and answers to others are passed over.
package nftables
