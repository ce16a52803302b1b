// Package bgp runs nodes of the pod network with anybody's routers: two racks with BIRD, FRR and gobgpd, a border, and a host outside.
// Agents, plugin, API server and routers are the real ones, and the routers have the very files of docs/public-addresses.md.
package bgp
