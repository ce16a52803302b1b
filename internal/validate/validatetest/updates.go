package validatetest

// PoolUpdates are specs of IPPools that are to replace others.
func PoolUpdates() []Update {
	return []Update{
		rightAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, natOutgoing: true, disabled: true}"),
		rightAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, vxlanMode: Always}"),
		rightAfter("{cidr: 10.0.0.0/16, nodeSelector: has(a)}", "{cidr: 10.0.0.0/16}"),

		wrongAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.1.0.0/16}", "spec.cidr", "cannot change from 10.0.0.0/16; delete"),
		wrongAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/15}", "spec.cidr", "cannot change"),
		wrongAfter("{cidr: 10.0.0.0/16}", "{cidr: 'fd00::/64'}", "spec.cidr", "cannot change"),
		wrongAfter("{cidr: 10.0.0.0/16, blockSize: 24}", "{cidr: 'fd00::/64', blockSize: 120}", "spec.cidr", "cannot change"),
		wrongAfter("{cidr: 10.0.0.0/16, disabled: true}", "{cidr: 10.1.0.0/16, disabled: true}", "spec.cidr", "cannot change"),
		wrongAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/33}", "spec.cidr", "must be a CIDR"),
		wrongAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.1/16}", "spec.cidr", "has bits set behind the prefix"),
		wrongAfter("{cidr: 10.0.0.0/16}", "{}", "spec.cidr", "is missing"),
		// A server that did not ask for it may have stored another form of the same range.
		rightAfter("{cidr: 10.0.0.1/16}", "{cidr: 10.0.0.0/16}"),
		// IPv6 has many forms, all of which are the same value.
		rightAfter("{cidr: 'FD00::/64'}", "{cidr: 'fd00::/64'}"),
		rightAfter("{cidr: 'fd00::/64'}", "{cidr: 'FD00:0:0:0::/64'}"),
		wrongAfter("{cidr: 'FD00::/64'}", "{cidr: 'FD01::/64'}", "spec.cidr", "cannot change from FD00::/64"),
		rightAfter("{cidr: 'FD00::/64', blockSize: 122}", "{cidr: 'fd00:0::/64', blockSize: 0}"),
		wrongAfter("{cidr: 'FD00::/64', blockSize: 120}", "{cidr: 'fd00:0::/64', blockSize: 121}", "spec.blockSize", "cannot change"),

		wrongAfter("{cidr: 10.0.0.0/16, blockSize: 24}", "{cidr: 10.0.0.0/16, blockSize: 25}", "spec.blockSize", "cannot change"),
		wrongAfter("{cidr: 10.0.0.0/16, blockSize: 24}", "{cidr: 10.0.0.0/16}", "spec.blockSize", "cannot change"),
		wrongAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, blockSize: 24}", "spec.blockSize", "cannot change"),
		rightAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, blockSize: 26}"),
		rightAfter("{cidr: 10.0.0.0/16, blockSize: 26}", "{cidr: 10.0.0.0/16}"),
		rightAfter("{cidr: 10.0.0.0/16, blockSize: 26}", "{cidr: 10.0.0.0/16, blockSize: 0}"),
		wrongAfter("{cidr: 10.0.0.0/16, blockSize: 0}", "{cidr: 10.0.0.0/16, blockSize: 27}", "spec.blockSize", "cannot change"),
		wrongAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, blockSize: 33}", "spec.blockSize", "20 to 32"),
		rightAfter("{cidr: 'fd00::/64'}", "{cidr: 'fd00::/64', blockSize: 122}"),
		wrongAfter("{cidr: 'fd00::/64'}", "{cidr: 'fd00::/64', blockSize: 121}", "spec.blockSize", "cannot change"),
		wrongAfter("{cidr: 'fd00::/64', blockSize: 120}", "{cidr: 'fd00::/64'}", "spec.blockSize", "cannot change"),
		wrongAfter("{cidr: 10.0.0.0/28, disabled: true}", "{cidr: 10.0.0.0/28}", "spec.blockSize", "larger than the pool"),
		rightAfter("{cidr: 10.0.0.0/28, blockSize: 28}", "{cidr: 10.0.0.0/28, blockSize: 28, disabled: true}"),

		rightAfter("{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer], disabled: true}"),
		wrongAfter("{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: [Workload]}", "spec.allowedUses", "stays one"),
		wrongAfter("{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: []}", "spec.allowedUses", "stays one"),
		wrongAfter("{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16}", "spec.allowedUses", "stays one"),
		wrongAfter("{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer, Workload]}", "spec.allowedUses", "stands alone"),
		wrongAfter("{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}", "{cidr: 10.0.0.0/16, allowedUses: [loadbalancer]}", "spec.allowedUses[0]", "Workload, Tunnel, LoadBalancer"),
		rightAfter("{cidr: 10.0.0.0/16, allowedUses: [Workload]}", "{cidr: 10.0.0.0/16, allowedUses: [LoadBalancer]}"),
		rightAfter("{cidr: 10.0.0.0/16}", "{cidr: 10.0.0.0/16, allowedUses: [Tunnel]}"),
		wrongAfter("{cidr: 10.0.0.0/16, namespaceSelector: has(a)}", "{cidr: 10.0.0.0/16, namespaceSelector: has(a), allowedUses: [Tunnel]}", "spec.namespaceSelector", "tunnels"),

		// What another server has stored may stay as it is, where nothing that it depends on changes.
		wrongAfter("{cidr: 10.0.0.1/16}", "{cidr: 10.0.0.1/16, natOutgoing: true}", "spec.cidr", "write 10.0.0.0/16").accepted(unchanged),
		rightAfter("{cidr: 'FD00::/64'}", "{cidr: 'FD00::/64', disabled: true}"),
		wrongAfter("{cidr: 169.254.0.0/24}", "{cidr: 169.254.0.0/24, natOutgoing: true}", "spec.cidr", "link-local").accepted(unchanged),
		wrongAfter("{cidr: 10.0.0.0/28}", "{cidr: 10.0.0.0/28, natOutgoing: true}", "spec.blockSize", "larger than the pool"),
		rightAfter("{cidr: 10.0.0.0/28}", "{cidr: 10.0.0.0/28, disabled: true}"),
	}
}
