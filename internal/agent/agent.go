// Package agent wires the parts of a node together: the datastore feeds the reconcile loop, the loop
// drives the kernel, and a socket and an HTTP address tell how it all stands.
//
// It holds no logic of its own about pools or packets. Stopping it leaves the kernel as it is.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/dir"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/diagnose"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/driver/hostaddr"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/reconcile"
	"github.com/sallyport/sallyport/internal/validate"
)

// Config says what an agent works on. Every field is required but MetricsAddress and BeatEvery, and what a datastore or the pod
// network has no use for.
type Config struct {
	NodeName   string
	Datastore  Datastore
	Dir        string // holds the manifests; for Directory
	Kubeconfig string // how the API server is reached; empty: as the pod that this is; for Kubernetes
	// LeaseNamespace is where the Lease is by which the agent says that it lives; for Kubernetes.
	LeaseNamespace string
	// BeatEvery is the time between two such heartbeats, give or take a quarter; 0: HeartbeatEvery.
	BeatEvery time.Duration
	StateDir  string // holds the last good state
	// PasswordDir holds the passwords of BGP sessions; for Directory.
	PasswordDir string
	Socket      string // path of the socket for status
	// Network says that the agent is the pod network: it gives workloads their addresses and links, and makes routes between
	// nodes. CNISocket is the path of the socket for its CNI plugin.
	Network   bool
	CNISocket string
	// MetricsAddress is where /healthz, /readyz and /metrics are served, as host:port; empty: nowhere.
	MetricsAddress string
	Version        string
	Log            *slog.Logger
}

// Datastore is where the resources are declared.
type Datastore string

// The datastores.
const (
	Directory  Datastore = "directory"  // manifests in a directory
	Kubernetes Datastore = "kubernetes" // the API of a cluster
)

// Agent is one running agent.
type Agent struct {
	*Core
	cfg       Config
	log       *slog.Logger
	nat       *nat.Driver
	table     *conntrack.Table
	flows     *conntrack.Driver
	store     datastore.Store
	loop      *reconcile.Loop
	local     *local
	network   *network // nil where another network gives pods their addresses
	diagnosis diagnosis
	counting  *counting
	thrift    *thrift
	stop      context.CancelFunc            // ends run, as a signal does
	remove    []func(context.Context) error // what removes all of ours from the kernel, in this order
	turned    atomic.Pointer[time.Time]     // when the reconcile loop last came round; nil before
}

// Run runs an agent until the context ends or a client asks it to stop. It returns an error if it could not
// start, or if a part of it broke that cannot go on. One that cannot start has changed nothing: a *HeldError says
// that an agent runs already, and those of check that the kernel or a right falls short.
func Run(ctx context.Context, cfg Config) (err error) {
	thrift := startThrift()
	defer thrift.end()
	validator := validate.New()
	if cfg.Datastore != Kubernetes && !dir.Saved(cfg.StateDir) {
		go validator.Prepare() // while the rest starts
	}
	held, err := lock(ctx, cfg.Log)
	if err != nil {
		return err
	}
	defer held.Close()
	driver, err := nat.New(nftables.Options{Log: cfg.Log})
	if err != nil {
		return err
	}
	defer driver.Close()
	table := conntrack.NewTable(0)
	if err := check(ctx, driver, table, cfg.Log); err != nil {
		return err
	}
	socket, err := listenSocket(ctx, cfg.Socket, "--socket", 0o660)
	if err != nil {
		return err
	}
	defer socket.Close()
	boot, err := bootID()
	if err != nil {
		return err
	}
	store, err := open(&cfg, thrift.validator(validator), boot, func() (bool, error) { return driver.Translates(ctx) })
	if err != nil {
		return err
	}
	flows := conntrack.New(table, cfg.Log)
	a := &Agent{cfg: cfg, thrift: thrift, log: cfg.Log, nat: driver, table: table, flows: flows, store: store}
	a.remove = []func(context.Context) error{driver.Cleanup, table.Cleanup}
	a.counting = newCounting(a.readCounts)
	drivers := []reconcile.Driver{natDriver{driver, flows}, flowsDriver{flows}}
	if cfg.Network {
		if a.network, err = openNetwork(ctx, a); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, a.network.close()) }()
		drivers = append(drivers, a.network.drivers()...)
		a.remove = append(a.network.remove(), a.remove...)
	}
	a.loop = reconcile.New(reconcile.Options{Drivers: drivers, Log: cfg.Log})
	a.local = newLocal(a.loop, cfg.NodeName, cfg.Network)
	a.Core = &Core{Store: store, Loop: a.loop, Version: cfg.Version, Log: cfg.Log, BootID: boot, BeatEvery: cfg.BeatEvery,
		Problems: func() []diagnose.Problem { return a.diagnosis.get().report.Problems }}
	if a.network != nil {
		a.Heard, a.BGP, a.Turned = a.network.manager.SetState, a.network.speaker.report, a.network.speaker.turned
	}

	ctx, a.stop = context.WithCancel(ctx)
	defer a.stop()

	cfg.Log.Info("starting", "node", cfg.NodeName, "datastore", cfg.Datastore, "reads", store.Contact().Where, "version", cfg.Version)
	err = a.run(ctx, socket)
	cfg.Log.Info("stopped; the rules in the kernel stay")
	return errors.Join(err, store.Close())
}

// bootID names the boot of this machine: the kernel makes another one each time.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading which boot of the machine this is: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// open opens the datastore.
func open(cfg *Config, v manifest.Validator, boot string, translates func() (bool, error)) (datastore.Store, error) {
	if cfg.Datastore == Kubernetes {
		to, err := kube.AgentConfig(cfg.Kubeconfig)
		if err != nil {
			return nil, err
		}
		o := kube.Options{Config: to, Node: cfg.NodeName, LeaseNamespace: cfg.LeaseNamespace, StateDir: cfg.StateDir, Version: cfg.Version,
			Network: cfg.Network, BootID: boot, Booted: booted, Log: cfg.Log}
		if cfg.Network {
			if o.Machine, err = machine(); err != nil {
				cfg.Log.Info("after a reboot, this node waits before it gives out addresses, since it cannot be told from another machine of its name", "why", err)
			}
		}
		return kube.Open(o)
	}
	return dir.Open(dirOptions(cfg, v, boot, translates))
}

func dirOptions(cfg *Config, v manifest.Validator, boot string, translates func() (bool, error)) dir.Options {
	return dir.Options{Dir: cfg.Dir, StateDir: cfg.StateDir, PasswordDir: cfg.PasswordDir, Version: cfg.Version, Boot: boot, Log: cfg.Log, Validator: v, Translates: translates}
}

// check looks for what the agent cannot do without; what may pass is only logged.
func check(ctx context.Context, driver *nat.Driver, table *conntrack.Table, log *slog.Logger) error {
	if err := driver.Check(ctx); err != nil {
		return err
	}
	err := table.Check(ctx)
	var missing *nfnetlink.UnsupportedError
	if errors.As(err, &missing) || ctx.Err() != nil {
		return err
	}
	if err != nil {
		log.Warn("looking whether flows can be listed failed; it will be tried again", "error", err)
	}
	return nil
}

func (a *Agent) run(ctx context.Context, socket net.Listener) error {
	var probes net.Listener
	if a.cfg.MetricsAddress != "" {
		var err error
		if probes, err = new(net.ListenConfig).Listen(ctx, "tcp", a.cfg.MetricsAddress); err != nil {
			return fmt.Errorf("listening for metrics and probes (--metrics-address): %w", err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, socket, a.socketHandler()) })
	if probes != nil {
		g.Go(func() error { return serve(ctx, probes, a.healthHandler(metricsHandler(&collector{a}, a.log))) })
	}
	g.Go(func() error {
		if a.network == nil {
			hostaddr.Watch(ctx, a.log, func(p []netip.Prefix) { a.local.set(func(l *model.Local) { l.Interfaces = p }) })
			return nil
		}
		hostaddr.WatchLinks(ctx, a.log, func(p []netip.Prefix, links []model.Link) {
			a.network.manager.SetLinks(links)
			a.local.set(func(l *model.Local) { l.Interfaces, l.Links = p, links })
		})
		return nil
	})
	if a.network != nil {
		g.Go(func() error { return a.network.run(ctx, a) })
	}
	g.Go(func() error { a.loop.Run(ctx); return nil })
	manager := systemd(a.log)
	if manager.listens {
		g.Go(func() error { a.report(ctx, manager); return nil })
	}
	g.Go(func() error { a.heartbeat(ctx, manager); return nil })
	g.Go(func() error { a.diagnose(ctx); return nil })
	g.Go(func() error { a.counting.run(ctx); return nil })
	g.Go(func() error {
		rest(ctx, func() <-chan struct{} { _, changed := a.loop.State(); return changed }, restAfter, a.thrift.rested)
		return nil
	})
	g.Go(func() error { return a.Core.Run(ctx) })
	return g.Wait()
}

// metricsHandler serves what the collectors give. What one cannot read is missing, and in the log: it must not
// hide that the node is not ready.
func metricsHandler(c prometheus.Collector, log *slog.Logger) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), c)
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError)})
}

// natDriver gives the nftables driver its part of the plan.
type natDriver struct {
	*nat.Driver
	flows *conntrack.Driver
}

func (natDriver) Name() string { return "nat" }

func (d natDriver) Apply(ctx context.Context, p *compile.Plan) error {
	err := d.Driver.Apply(ctx, p.NAT)
	if r := d.Found(); r != nil {
		d.flows.Found(p.Found(r.Sources, r.Exempt, r.Covers(p.NAT.OutInterfaces)))
	}
	return err
}

// listenSocket makes a socket of the agent, which the users that its mode names alone may use, and the directory that it is in.
// A socket that a dead agent left is replaced; one on which an agent answers is an error. The flag is the one that names another
// path.
func listenSocket(ctx context.Context, path, flag string, mode os.FileMode) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of the socket: %w", err)
	}
	if NewClient(path).Running(ctx) {
		return nil, fmt.Errorf("another agent answers on %s: stop it first, or give this one its own %s and --state-dir in another network namespace", path, flag)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("making the socket: %s is there and is no socket: move it away, or give another %s", path, flag)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the socket of an earlier agent: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("making the socket: %w", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(fmt.Errorf("restricting the socket: %w", err), l.Close())
	}
	return l, nil
}

// serve answers on l until the context ends; calls under way then have a moment to finish. Connections that are still open
// after it are closed, which is no error: a client must not make a stop look like a failure.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			_ = srv.Close()
		}
	}()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	<-stopped
	return nil
}
