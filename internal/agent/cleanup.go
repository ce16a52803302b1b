package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/sallyport/sallyport/internal/driver/bgp"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/driver/route"
	links "github.com/sallyport/sallyport/internal/driver/workload"
	"github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/waiting"
)

// How long cleanup waits for an agent to remove what it has made, and then to end, and how often it looks whether it
// has ended.
const (
	removePatience = 20 * time.Second
	stopPatience   = 20 * time.Second
	stopInterval   = 20 * time.Millisecond
)

// Cleanup removes from the kernel all that agents have put there. The agent of this network namespace, if one runs,
// is asked through its socket to remove it and end; stopped is its process, if it was seen to have ended, or else 0. An
// agent that cannot remove all, or whose caller is gone before it has, goes on as before, and repairs what it had
// removed. With an error and stopped other than 0, the agent has removed all and ended.
func Cleanup(ctx context.Context, socket string) (stopped int, err error) {
	log := slog.New(slog.DiscardHandler)
	held, stopped, err := takeOver(ctx, socket, log)
	if err != nil {
		return stopped, err
	}
	defer held.Close()
	d, err := nat.New(nftables.Options{Log: log})
	if err != nil {
		return stopped, err
	}
	defer d.Close()
	err = await(ctx, func() (bool, error) {
		err := d.Cleanup(ctx)
		// The kernel closes the sockets of a process that ended one by one: the table may have its owner a
		// little longer than the lock.
		var owned *nftables.OwnedError
		return !errors.As(err, &owned), err
	})
	if err == nil {
		err = conntrack.NewTable(0).Cleanup(ctx)
	}
	if err == nil {
		err = cleanNetwork(ctx, log)
	}
	return stopped, err
}

// cleanNetwork removes the links of workloads, the routes between nodes and those learned by BGP, and the guard of BFD. The peers of an agent that ended keep
// the routes to this node for as long as they wait for it to be back (maxRestartTime).
func cleanNetwork(ctx context.Context, log *slog.Logger) error {
	l, err := links.New(links.Options{Log: log})
	if err != nil {
		return err
	}
	r, err := route.New(route.Options{Log: log})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	k, err := route.NewKeeper(route.Options{Log: log})
	if err != nil {
		return errors.Join(err, r.Close(), l.Close())
	}
	b := bgp.New(bgp.Options{Log: log})
	return errors.Join(k.Cleanup(ctx), b.Cleanup(ctx), l.Cleanup(ctx), r.Cleanup(ctx), k.Close(), b.Close(), r.Close(), l.Close())
}

// takeOver takes the lock, from the agent that holds it if there is one.
func takeOver(ctx context.Context, socket string, log *slog.Logger) (l io.Closer, stopped int, err error) {
	l, err = lock(ctx, log)
	var first *HeldError
	if !errors.As(err, &first) {
		return l, 0, err
	}
	peer, err := peerOf(ctx, socket)
	if err != nil || first.PID == 0 || int(peer.Pid) != first.PID {
		return nil, 0, fmt.Errorf("an agent runs in this network namespace %s, and is not the one on the socket %s: give its --socket, or stop it first, %s",
			first.who(), socket, first.remedy())
	}
	err = NewClient(socket).Cleanup(ctx, removePatience)
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		return nil, 0, fmt.Errorf("nothing was cleaned up, and the agent %s goes on: %w", first.who(), err)
	case err != nil:
		return nil, 0, fmt.Errorf("the agent %s did not confirm the cleanup; if it goes on, it puts back what it has removed: %w", first.who(), err)
	}
	err = await(ctx, func() (done bool, err error) {
		l, stopped, err = succeed(ctx, first, log)
		return l != nil || stopped != 0, err
	})
	return l, stopped, err
}

// succeed takes the lock from an agent that was told to end; stopped is its process, if it holds the lock no more. With
// none of both it may still run.
func succeed(ctx context.Context, first *HeldError, log *slog.Logger) (l io.Closer, stopped int, err error) {
	l, err = lock(ctx, log)
	var still *HeldError
	switch {
	case err == nil:
		if _, ours := l.(net.Listener); ours {
			stopped = first.PID
		}
		return l, stopped, nil
	case !errors.As(err, &still):
		return nil, 0, fmt.Errorf("the agent %s has removed all, but was not seen to end: %w", first.who(), err)
	case *still != *first:
		return nil, first.PID, fmt.Errorf("the agent stopped, and its supervisor started it again %s: stop it there first, such as by \"systemctl disable --now sallyport\"",
			still.who())
	}
	return nil, 0, fmt.Errorf("the agent %s has removed all, but did not end within %s: end it with \"kill %d\"", first.who(), stopPatience, first.PID)
}

// cleanUp removes from the kernel what this agent has put there, and ends the agent. With an error the agent goes on,
// and puts back what was removed: so where remove fails, and where the context ends before all is done.
func (a *Agent) cleanUp(ctx context.Context) error {
	err := a.loop.Pause(ctx, func() error {
		for _, remove := range a.remove {
			if err := remove(ctx); err != nil {
				return err
			}
		}
		// A process that was stopped meanwhile runs on before its timers do.
		if end, ok := ctx.Deadline(); ctx.Err() != nil || ok && !time.Now().Before(end) {
			return cmp.Or(ctx.Err(), context.DeadlineExceeded)
		}
		a.stop()
		return nil
	})
	if err != nil {
		a.log.Error("a cleanup failed: the agent goes on, and programs the kernel again", "error", err)
	}
	return err
}

// await calls try until it is done, for the time of stopPatience, and returns its last error.
func await(ctx context.Context, try func() (done bool, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, stopPatience)
	defer cancel()
	for {
		done, err := try()
		if done {
			return err
		}
		if !waiting.Sleep(ctx, nil, stopInterval) {
			return err
		}
	}
}
