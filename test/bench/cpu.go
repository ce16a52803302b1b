package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/lab"
)

// lastCPU is the highest CPU that this process may use: interrupts and everybody else's work tend to
// the lowest.
func lastCPU() (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, fmt.Errorf("asking which CPUs may be used: %w", err)
	}
	for cpu := len(set)*64 - 1; cpu >= 0; cpu-- {
		if set.IsSet(cpu) {
			return cpu, nil
		}
	}
	return 0, fmt.Errorf("asking which CPUs may be used: none")
}

// pinned runs f in a host, on a thread that stays on one CPU. What f sends is forwarded and received on
// that CPU too, in f's own time: a veth hands a packet to the receiving end's softirq on the CPU that it
// was sent on, and that runs before the send returns.
//
// Where that is allowed, f goes before all that others want to do on that CPU: while somebody waits for
// the CPU, softirqs may be left to a thread of the kernel, in whose time nobody would see them.
func pinned(h *lab.Host, cpu int, f func() error) error {
	return h.Do(func() (err error) {
		var before, only unix.CPUSet
		if err := unix.SchedGetaffinity(0, &before); err != nil {
			return fmt.Errorf("asking which CPUs may be used: %w", err)
		}
		only.Set(cpu)
		if err := unix.SchedSetaffinity(0, &only); err != nil {
			return fmt.Errorf("staying on CPU %d: %w", cpu, err)
		}
		defer func() { err = errors.Join(err, unix.SchedSetaffinity(0, &before)) }()
		if setPriority(unix.SCHED_FIFO, 1) == nil {
			defer func() { err = errors.Join(err, setPriority(unix.SCHED_NORMAL, 0)) }()
		}
		return f()
	})
}

// setPriority sets how the calling thread is scheduled.
func setPriority(policy, priority uint32) error {
	a := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}
	return unix.SchedSetAttr(0, a, 0)
}

// stopwatch counts what a thread uses, from the first look on.
type stopwatch struct {
	wall time.Time
	cpu  time.Duration
}

func startStopwatch() (stopwatch, error) {
	cpu, err := threadCPU()
	return stopwatch{time.Now(), cpu}, err
}

// read is the CPU time that the calling thread has used since the start. Time in which others ran is not
// in it, and time in which the kernel forwarded what the thread had sent is, provided that the kernel
// does not count softirqs apart (CONFIG_IRQ_TIME_ACCOUNTING).
func (s stopwatch) read() (time.Duration, error) {
	cpu, err := threadCPU()
	return cpu - s.cpu, err
}

func (s stopwatch) ran(d time.Duration) bool { return time.Since(s.wall) >= d }

func threadCPU() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("reading the thread's CPU time: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
