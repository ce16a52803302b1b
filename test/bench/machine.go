package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// describeMachine says where is measured. What cannot be found out is left empty.
func describeMachine(ctx context.Context, o options, iptables string) machine {
	m := machine{
		When: time.Now().UTC().Format("2006-01-02 15:04 MST"), CPUs: runtime.NumCPU(), Iptables: iptables,
		Rounds: o.trafficRounds, SlotMS: o.slot.Milliseconds(), Load: []string{load()},
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range bytes.Lines(b) {
			if name, value, ok := bytes.Cut(line, []byte(":")); ok && strings.TrimSpace(string(name)) == "model name" {
				m.CPU = strings.TrimSpace(string(value))
				break
			}
		}
	}
	cmd := exec.CommandContext(ctx, o.program, "version")
	cmd.Env = append(os.Environ(), o.env...)
	if b, err := cmd.Output(); err == nil {
		m.Program, _, _ = strings.Cut(string(b), "\n")
	}
	return m
}

// load is the load average over a minute; empty where it cannot be read.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	average, _, _ := strings.Cut(string(b), " ")
	return average
}
