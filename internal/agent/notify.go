package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// supervisor is told how the agent stands, in the words of sd_notify(3).
type supervisor struct {
	listens bool
	tell    func(states ...string)
	// watchdog is the time within which it wants to hear that the agent works; 0 if it does not.
	watchdog time.Duration
}

// systemd is the service manager that has started this process, or one that hears nothing if none has.
func systemd(log *slog.Logger) supervisor {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog's time is not understood; the service manager will hear nothing of it", "error", err)
	}
	return supervisor{listens: os.Getenv("NOTIFY_SOCKET") != "", watchdog: watchdog, tell: func(states ...string) {
		if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
			log.Warn("telling the service manager failed", "error", err)
		}
	}}
}

// report tells a supervisor how the node stands, until the context ends: once that it is ready, and each
// time that something changes, in words.
func (a *Agent) report(ctx context.Context, to supervisor) {
	for ready, last := false, ""; ; {
		state, changed := a.loop.State()
		read := a.resources.changed()
		var news []string
		if now, _ := state.Ready(); now && !ready {
			news, ready = append(news, daemon.SdNotifyReady), true
		}
		if line := a.statusLine(); line != last {
			news, last = append(news, "STATUS="+line), line
		}
		if len(news) > 0 {
			to.tell(news...)
		}
		select {
		case <-changed:
		case <-read:
		case <-ctx.Done():
			to.tell(daemon.SdNotifyStopping, "STATUS=stopping; the rules in the kernel stay")
			return
		}
	}
}

// statusLine says in one line how the node stands.
func (a *Agent) statusLine() string {
	state, _ := a.loop.State()
	held := a.resources.get()
	line := "ready"
	if ready, reason := state.Ready(); !ready {
		line = "not ready: " + reason
	} else if held.Snapshot != nil {
		line = fmt.Sprintf("ready; pools in force: %d", len(held.Snapshot.Pools))
	}
	if len(held.Faults) > 0 {
		line += fmt.Sprintf("; faults hold changes back (%d): %s", len(held.Faults), held.Faults[0])
	}
	return strings.Join(strings.Fields(line), " ")
}

// beatEvery is the time between two heartbeats where no watchdog says it.
const beatEvery = 10 * time.Second

// heartbeat takes note each time that the reconcile loop has come round, for /healthz, and feeds the supervisor's
// watchdog, until the context ends: where the loop hangs, both starve.
func (a *Agent) heartbeat(ctx context.Context, to supervisor) {
	every := beatEvery
	if to.watchdog > 0 {
		every = to.watchdog / 3
	}
	beat := time.NewTicker(every)
	defer beat.Stop()
	for a.loop.Turn(ctx) == nil {
		now := time.Now()
		a.turned.Store(&now)
		if to.watchdog > 0 {
			to.tell(daemon.SdNotifyWatchdog)
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
		}
	}
}
