package conntrack

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL of linux/membarrier.h.
const membarrierGlobal = 1

// grace returns when every packet that was under way in the kernel at its call has left the netfilter hooks, so that
// each is in the conntrack table or never will be. A packet that met older rules just before a change may otherwise
// enter the table after a walk has passed its place.
//
// The kernel runs the hooks, the one that confirms an entry among them, within one RCU read-side section, and
// membarrier(2) waits for an RCU grace period (sys_membarrier of kernel/sched/membarrier.c calls synchronize_rcu).
// That takes some milliseconds and no CPU time. A packet that a third party holds in user space (NFQUEUE) is not waited
// for. It meets the new rules when it comes back, unless the third party queues it after translation (postrouting, with
// a priority above srcnat).
//
// The error says that the kernel offers no such wait: it was built without membarrier, runs with nohz_full, or a
// seccomp filter forbids the call.
func grace() error {
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		return fmt.Errorf("waiting for the packets under way (membarrier): %w", errno)
	}
	return nil
}
