// Package ipam gives the addresses of a node's blocks to its workloads.
//
// A pool is divided into blocks of its blockSize. A node owns some of them, and no other node gives out their addresses. The
// kernel holds which addresses are in use: the caller of a Space tells it of each workload that the kernel has, and of each
// that has gone. The package decides, and does nothing: it reads no clock, claims no block and writes no record.
//
// An address that was given back cools down before it is given out again, so that what others still send to the workload
// of before does not reach another one. Addresses that cool down are taken, the oldest first, before a pod stays without one.
package ipam
