// Package nodes adds real nodes to the control plane of package cluster: containerd, kubelet and kube-proxy, on machines
// made of namespaces.
//
//	               control plane
//	                     |
//	outside ---------- router ---------- far subnet: n3
//	                     |
//	           near subnet: n1, n2
//
// A node is a network, mount, UTS, PID and cgroup namespace with a file system of its own, in memory: of the machine it
// sees /usr, read-only. Kill is a power cut, Boot after it a reboot: files stay, processes and the network go.
//
// Nothing outside of these namespaces is touched but cgroups, which lie below one folder, and which the end of the test
// removes; those of a run that was killed are removed by the next. Where this machine's kernel or user do not allow
// nodes, tests are skipped.
package nodes
