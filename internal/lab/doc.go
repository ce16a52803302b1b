// Package lab builds small networks out of network namespaces, for the demo and for tests.
//
// A Host is a network namespace that is held by a file descriptor alone: it has no name in the file
// system, and the kernel removes it, with all that is in it, when the last descriptor, socket and process
// in it is gone. Hosts are joined by Link (a veth pair) and Bridge.
//
// Isolate runs the whole program again in namespaces of its own, so that nothing it does can reach the
// machine and nothing stays behind, however it ends. It works as root, and without root where the kernel
// allows user namespaces.
//
// The package never touches a network namespace that it did not make.
package lab
