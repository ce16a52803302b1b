// Package kube tests what Sallyport does with a real Kubernetes API server (see cluster): the definitions of its
// resources, and what reads and writes them.
package kube
