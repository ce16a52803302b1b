package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/sallyport/sallyport/test/kube/cluster"
)

// large is a cluster with many Nodes and pools, and one agent in it.
type large struct {
	o          options
	scope      *scope
	cluster    *cluster.Cluster
	api        dynamic.Interface
	kubeconfig string
	what       string // begins what is said of it
}

// measureLarge measures an agent in a cluster as large as they get: how long it takes to start, how soon it follows a
// change, what memory it needs. Then the same where all Nodes are exempt, and so watched.
func measureLarge(ctx context.Context, o options, tmp string) (out []result, err error) {
	err = within(ctx, tmp, func(s *scope) error {
		c, api, err := populated(s, o.nodes, o.pools)
		if err != nil {
			return err
		}
		l := &large{o, s, c, api, c.Kubeconfig(s, "admin", "system:masters"), fmt.Sprintf("%d Nodes, %d pools", o.nodes, o.pools)}
		few, err := l.measure(ctx)
		out = few
		if err != nil {
			return err
		}
		if err := exemptNodes(ctx, api); err != nil {
			return err
		}
		l.what += ", Nodes exempt"
		all, err := l.measure(ctx)
		out = append(out, all...)
		return err
	})
	return out, err
}

// measure starts agents on what the API has.
func (l *large) measure(ctx context.Context) ([]result, error) {
	var cold, warm, changes []time.Duration
	var memory figures
	for range l.o.rounds {
		n, state, err := l.newNode()
		if err != nil {
			return nil, err
		}
		first, err := l.start(ctx, n, state, nil)
		if err == nil {
			cold = append(cold, first)
			first, err = l.start(ctx, n, state, func(a *agentProcess) error {
				return memory.afterStart(a, l.o.settle)
			})
			warm = append(warm, first)
		}
		if err := errors.Join(err, n.close()); err != nil {
			return nil, err
		}
	}
	changes, err := l.changes(ctx, &memory)
	if err != nil {
		return nil, err
	}
	return append([]result{
		milliseconds(l.what+": agent started to ready, nothing saved", cold),
		milliseconds(l.what+": agent restarted on its own table and state", warm),
		milliseconds(l.what+": one changed, from the API's answer to the first translated packet", changes),
	}, memory.results(l.what)...), nil
}

// newNode makes a node that is linked to the control plane, with a directory for its agent.
func (l *large) newNode() (n *network, state string, err error) {
	if n, err = newNetwork(true); err != nil {
		return nil, "", err
	}
	l.cluster.Connect(l.scope, n.node)
	return n, filepath.Join(l.scope.TempDir(), "state"), nil
}

// start runs an agent until it is ready and something was done with it, and returns how long it took to be ready.
func (l *large) start(ctx context.Context, n *network, state string, do func(*agentProcess) error) (time.Duration, error) {
	begin := time.Now()
	a, err := startClusterAgent(ctx, l.o, n, l.kubeconfig, state)
	if err != nil {
		return 0, err
	}
	err = a.probed(ctx)
	took := time.Since(begin)
	if err == nil && do != nil {
		err = do(a)
	}
	return took, errors.Join(err, a.stop())
}

// changes switches translation for one of many pools, and looks at the memory of an agent that has started with
// nothing.
func (l *large) changes(ctx context.Context, m *figures) ([]time.Duration, error) {
	n, state, err := l.newNode()
	if err != nil {
		return nil, err
	}
	var took []time.Duration
	_, err = l.start(ctx, n, state, func(a *agentProcess) error {
		if err := m.afterFirst(a, l.o.settle); err != nil {
			return err
		}
		p, err := startProber(ctx, n)
		if err != nil {
			return err
		}
		for range l.o.changes {
			d, err := l.change(ctx, p)
			if err != nil {
				return errors.Join(err, p.close())
			}
			took = append(took, d)
		}
		return errors.Join(p.close(), m.afterChanges(ctx, a, l.o.settle))
	})
	return took, errors.Join(err, n.close())
}

// change switches translation off and on again, and returns how long after the API's answer the first new flow was
// translated; 0 where it was by then.
func (l *large) change(ctx context.Context, p *prober) (time.Duration, error) {
	var answered time.Duration
	patch := func(yes bool) func() error {
		return func() error {
			begin := time.Now()
			_, err := translate(ctx, l.api, 0, yes)
			answered = time.Since(begin)
			return err
		}
	}
	if _, err := p.await(false, patch(false)); err != nil {
		return 0, err
	}
	time.Sleep(10 * time.Millisecond) // idle, as most nodes are when somebody changes a pool
	d, err := p.await(true, patch(true))
	time.Sleep(10 * time.Millisecond)
	return max(0, d-answered), err
}

// figures are what memory agents had, in MiB.
type figures struct {
	first, firstPeak, again, againPeak []float64
	changed, rested, scraped, peak     []float64
	file                               []float64
}

func (f *figures) afterFirst(a *agentProcess, settle time.Duration) error {
	time.Sleep(settle) // until it gives back what it needed to start
	return look(a, &f.first, &f.firstPeak)
}

func (f *figures) afterStart(a *agentProcess, settle time.Duration) error {
	time.Sleep(settle)
	return look(a, &f.again, &f.againPeak)
}

func (f *figures) afterChanges(ctx context.Context, a *agentProcess, settle time.Duration) error {
	if err := look(a, &f.changed, nil); err != nil {
		return err
	}
	time.Sleep(settle)
	if err := look(a, &f.rested, nil); err != nil {
		return err
	}
	ofFile, err := a.residentFile()
	if f.file = append(f.file, ofFile); err != nil {
		return err
	}
	return errors.Join(a.scrape(ctx), look(a, &f.scraped, &f.peak))
}

// look notes what memory an agent has, and the most that it has had.
func look(a *agentProcess, now, peak *[]float64) error {
	v, err := a.resident()
	*now = append(*now, v)
	if err != nil || peak == nil {
		return err
	}
	v, err = a.peak()
	*peak = append(*peak, v)
	return err
}

func (f *figures) results(what string) []result {
	line := func(when string, vs []float64) result { return summary(what+": resident "+when, "MiB", vs) }
	return []result{
		line("after a first start", f.first), line("at most during a first start", f.firstPeak),
		line("after a restart", f.again), line("at most during a restart", f.againPeak),
		line("right after the changes", f.changed), line("some seconds later", f.rested), line("right after a scrape", f.scraped), line("at most during all that", f.peak),
		summary(what+": of all these, pages of the program's file", "MiB", f.file),
	}
}
