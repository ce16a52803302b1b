// Package nat holds the part of a plan that translates connections in the kernel's nf_tables.
//
// It declares the one table "inet sallyport", and says what stands in it and what its counters mean. The engine of
// that table (internal/nftables) makes the kernel's table equal to it, and promises how. Where the kernel refuses
// something of one address family, the other is brought there all the same (families.go).
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
// layout.go, guard.go, rules.go and match.go declare the table, cover.go finds the prefixes that the guard's rules
// compare addresses with, and found.go says what an earlier agent's table translated.
package nat
