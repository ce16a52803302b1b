// Package cluster runs a real Kubernetes control plane for tests: etcd, kube-apiserver and, where asked for,
// kube-controller-manager, as processes in a host of the lab.
//
// Every Cluster has a network namespace of its own, with fixed addresses and ports: any number run side by side.
// The test's own code talks to it through Config and Kubectl, which reach into that namespace; the hosts that are a
// test's nodes are linked to it by Connect, and programs on them use the files that Kubeconfig and TokenKubeconfig
// write. Requests are authorized by Node and RBAC, as in any cluster.
//
// The programs are built by hack/kube-binaries. Nothing is started that is not ended with the test, and everything
// that is waited for has a bound. The package does not use envtest: that starts neither a controller manager nor an
// API server in another namespace, and takes an open watch for a reason not to stop.
package cluster
