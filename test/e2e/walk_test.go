package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore/dir"
	"github.com/sallyport/sallyport/internal/driver/conntrack"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nfnetlink"
	"github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/reconcile"
	"github.com/sallyport/sallyport/internal/validate"
)

// walkEnv is how long the random walk goes on, such as 5m. Without it, it is short.
const walkEnv = "SALLYPORT_E2E_WALK"

// walk is an agent's parts on a rig's node, on a kernel where nobody can own a table, with all that can be done
// to them. Its steps are random; between them the invariants are checked.
type walk struct {
	t         *testing.T
	rnd       *rand.Rand
	rig       *rig
	cov       *coverage
	storm     *storm
	validator *validate.Validator
	log       *slog.Logger
	base      string

	manifests map[string]string // by file, without the faulty ones
	faulty    bool              // a faulty manifest is there
	away      bool              // the directory is
	full      bool              // the disk with the last good state is
	named     int               // pools, so that each has a name of its own
	moved     bool              // the node has its third address
	want      *model.Snapshot   // the last good state
	stopped   func()
	loop      *reconcile.Loop
	watcher   *nat.Driver // that only looks

	mu    sync.Mutex
	state dir.State

	trace []string
}

func newWalk(t *testing.T) *walk {
	t.Helper()
	w := &walk{t: t, rnd: newRand(t), rig: newRig(t), cov: newCoverage(), validator: validate.New(), base: t.TempDir(),
		log: slog.New(slog.DiscardHandler), manifests: map[string]string{}}
	w.storm = &storm{rnd: rand.New(rand.NewPCG(w.rnd.Uint64(), 0))}
	labtest.Must(t, os.Mkdir(w.dir(), 0o755), os.Mkdir(w.stateDir(), 0o755), unix.Mount("tmpfs", w.stateDir(), "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { labtest.Must(t, unix.Unmount(w.stateDir(), unix.MNT_DETACH)) })
	var err error
	w.watcher, err = nat.New(nftables.Options{Log: w.log, NetNS: w.rig.node.FD()})
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, w.watcher.Close()) })
	w.start()
	t.Cleanup(func() { w.stopped() })
	return w
}

func (w *walk) dir() string      { return filepath.Join(w.base, "resources") }
func (w *walk) stateDir() string { return filepath.Join(w.base, "state") }

// start wires the parts as an agent does.
func (w *walk) start() {
	w.t.Helper()
	driver, err := nat.New(nftables.Options{Log: w.log, NetNS: w.rig.node.FD(), Unowned: true, Wrap: w.storm.over})
	labtest.Must(w.t, err)
	flows := conntrack.New(conntrack.NewTableOn(func() (nfnetlink.Socket, error) {
		s, err := nfnetlink.Dial(w.rig.node.FD())
		if err != nil {
			return nil, err
		}
		return w.storm.over(s), nil
	}), w.log)
	w.loop = reconcile.New(reconcile.Options{Drivers: []reconcile.Driver{natDriver{driver}, flowsDriver{flows}}, Log: w.log,
		RetryMin: 5 * time.Millisecond, RetryMax: 100 * time.Millisecond})
	store, err := dir.Open(dir.Options{Dir: w.dir(), StateDir: w.stateDir(), Log: w.log, Validator: w.validator})
	labtest.Must(w.t, err)
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	loop := w.loop
	group.Go(func() { loop.Run(ctx) })
	group.Go(func() {
		if err := store.Run(ctx, func(s dir.State) {
			w.mu.Lock()
			w.state = s
			w.mu.Unlock()
			loop.SetSnapshot(s.Snapshot, s.Version)
		}); err != nil {
			w.t.Error(err)
		}
	})
	w.stopped = func() {
		stop()
		group.Wait()
		_ = store.Close() // it cannot save where the disk is full
		labtest.Must(w.t, driver.Close())
	}
	w.tellLocal()
}

// local is what the node knows of itself.
func (w *walk) local() model.Local {
	l := w.rig.local
	if w.moved {
		l.Interfaces = append(slices.Clone(l.Interfaces), movedAddress)
	}
	return l
}

var movedAddress = netip.MustParsePrefix("192.0.2.9/24")

func (w *walk) tellLocal() { w.loop.SetLocal(w.local()) }

// step is one thing that can be done.
type step struct {
	name   string
	weight int
	do     func(*walk)
}

// walkSteps are all that is done, by hand and by chance.
var walkSteps = []step{
	{"pool", 6, (*walk).putPool},
	{"pool removed", 3, (*walk).removePool},
	{"settings", 4, (*walk).putSettings},
	{"faulty manifest", 2, (*walk).putFaulty},
	{"directory away", 1, (*walk).hideDirectory},
	{"disk full", 1, (*walk).fillDisk},
	{"restart", 2, (*walk).restart},
	{"address", 2, (*walk).changeAddress},
	{"tampering", 4, (*walk).tamper},
	{"churn of others", 2, (*walk).churn},
	{"flows forgotten", 1, (*walk).forgetFlows},
}

func (w *walk) file(name, text string) {
	w.t.Helper()
	at := w.dir()
	if w.away {
		at += ".away"
	}
	labtest.Must(w.t, os.WriteFile(filepath.Join(at, "."+name), []byte(text), 0o644), os.Rename(filepath.Join(at, "."+name), filepath.Join(at, name)))
}

// putPool makes a pool, or another of one.
func (w *walk) putPool() {
	file := fmt.Sprintf("pool%d.yaml", w.rnd.IntN(6))
	near := bases[w.rnd.IntN(len(bases))]
	cidr := netip.PrefixFrom(randomIn(w.rnd, near), near.Bits()+w.rnd.IntN(min(13, near.Addr().BitLen()-near.Bits()+1))).Masked()
	w.named++
	text := fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p%d}\nspec: {cidr: '%s', blockSize: %d, natOutgoing: %t, disabled: %t}\n",
		w.named, cidr, max(cidr.Bits(), cidr.Addr().BitLen()-6), w.rnd.IntN(2) == 0, w.rnd.IntN(6) == 0)
	w.manifests[file] = text
	w.file(file, text)
}

func (w *walk) removePool() {
	var files []string
	for f := range w.manifests {
		files = append(files, f)
	}
	if len(files) == 0 || w.away {
		return
	}
	slices.Sort(files)
	f := pick(w.rnd, files)
	delete(w.manifests, f)
	labtest.Must(w.t, os.Remove(filepath.Join(w.dir(), f)))
}

func (w *walk) putSettings() {
	var spec []string
	for _, field := range [][]string{
		{"leakGuard: Enabled", "leakGuard: Disabled"}, {"linkLocal: Translate", "linkLocal: Keep"}, {"existingFlows: Move", "existingFlows: Keep", "existingFlows: Reset"},
		{"outInterfaces: [eth0]", "outInterfaces: ['eth*']", "outInterfaces: []"}, {"portRange: 20000-40000"}, {"exclusions: IPPoolsAndHostIPs"},
		{"addresses: [192.0.2.200]", "addresses: [192.0.2.200, '2001:db8:f0::200']"}, {"portAllocation: Random", "portAllocation: Preserve"},
	} {
		if w.rnd.IntN(2) == 0 {
			spec = append(spec, pick(w.rnd, field))
		}
	}
	text := "apiVersion: sallyport.dev/v1alpha1\nkind: NATConfiguration\nmetadata: {name: default}\nspec: {" + strings.Join(spec, ", ") + "}\n"
	w.manifests["settings.yaml"] = text
	w.file("settings.yaml", text)
}

func (w *walk) putFaulty() {
	if w.away {
		return
	}
	w.faulty = true
	w.file("faulty.yaml", pick(w.rnd, []string{"apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: x}\nspec: {cidr: 10.0.0.0/33}\n", "[", "", "kind: Pod\n"}))
}

func (w *walk) hideDirectory() {
	if !w.away {
		labtest.Must(w.t, os.Rename(w.dir(), w.dir()+".away"))
		w.away = true
	}
}

// fillDisk leaves no room for the last good state.
func (w *walk) fillDisk() {
	f, err := os.Create(filepath.Join(w.stateDir(), "ballast"))
	labtest.Must(w.t, err)
	for b := make([]byte, 1<<12); err == nil; {
		_, err = f.Write(b)
	}
	if !errors.Is(err, unix.ENOSPC) {
		w.t.Fatal(err)
	}
	labtest.Must(w.t, f.Close())
	w.full = true
}

// restart stops the agent wherever it has come to, and starts it again.
func (w *walk) restart() {
	w.stopped()
	if w.full { // an agent that cannot open its state does not start
		w.mendDisk()
	}
	w.start()
}

func (w *walk) changeAddress() {
	change := w.rig.node.AddAddress
	if w.moved {
		change = w.rig.node.RemoveAddress
	}
	labtest.Must(w.t, change("eth0", movedAddress))
	w.moved = !w.moved
	w.tellLocal()
}

// tamper does to our table what others do. What is not there by now cannot be changed either.
func (w *walk) tamper() {
	const in = " inet sallyport "
	_ = w.nft(pick(w.rnd, []string{
		"flush ruleset", "delete table" + in, "flush chain" + in + "postrouting", "flush table" + in, "insert rule" + in + "postrouting accept",
		"flush set" + in + "source4", "add element" + in + "exempt4 { 0.0.0.0/1 }", "add table" + in + "{ flags dormant; }", "add chain" + in + "x",
		"flush chain" + in + "guard", "flush chain" + in + "snat6",
	}))
}

// churn changes a table of others, as kube-proxy would.
func (w *walk) churn() {
	labtest.Must(w.t, w.nft("add table ip other"), w.nft("add chain ip other c"), w.nft("add rule ip other c counter"), w.nft("delete table ip other"))
}

func (w *walk) forgetFlows() { (&path{node: w.rig.node}).forget(w.t) }

func (w *walk) nft(command string) error {
	return w.rig.node.Do(func() error {
		out, err := exec.Command("nft", command).CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft %s: %w\n%s", command, err, out)
		}
		return nil
	})
}

// mend takes away every fault, and none of the changes.
func (w *walk) mend() {
	w.storm.blow(0)
	if w.away {
		labtest.Must(w.t, os.Rename(w.dir()+".away", w.dir()))
		w.away = false
	}
	if w.faulty {
		labtest.Must(w.t, os.Remove(filepath.Join(w.dir(), "faulty.yaml")))
		w.faulty = false
	}
	w.mendDisk()
}

func (w *walk) mendDisk() {
	if w.full {
		labtest.Must(w.t, os.Remove(filepath.Join(w.stateDir(), "ballast")))
		w.full = false
	}
}

// expected is the plan that manifests and addresses come to, read by nobody but this test.
func (w *walk) expected() *compile.Plan {
	w.t.Helper()
	loaded, err := dir.Load(w.dir(), w.validator)
	labtest.Must(w.t, err)
	if len(loaded.Faults) > 0 {
		w.t.Fatalf("the walk has left faults: %v", loaded.Faults)
	}
	w.want = loaded.Snapshot
	return compile.Compile(w.want, w.local())
}

// converges waits until the node is ready with the plan that is expected, and the kernel holds it: of tampering
// the node knows a moment later.
func (w *walk) converges() *compile.Plan {
	w.t.Helper()
	want := w.expected()
	for patient := time.After(3 * patience); ; {
		s, changed := w.loop.State()
		if ready, _ := s.Ready(); ready && sameNAT(&s.Plan.NAT, &want.NAT) {
			seen, err := w.watcher.Preview(w.t.Context(), s.Plan.NAT)
			labtest.Must(w.t, err)
			if seen.Equal {
				return s.Plan
			}
		}
		select {
		case <-changed:
		case <-patient:
			_, why := s.Ready()
			w.t.Fatalf("it does not converge: %q; faults %v\n%s", why, w.faults(), cmp.Diff(want.NAT, s.Plan.NAT, comparers))
		}
	}
}

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netipx.IPRange) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty(),
}

func sameNAT(a, b *compile.NAT) bool { return cmp.Equal(*a, *b, comparers) }

func (w *walk) faults() []model.Fault {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state.Faults
}

// honest makes sure that a node that says it is ready is: what the kernel holds, read by a stranger, is the
// plan. It is not for the moment after tampering, of which nobody can know yet.
func (w *walk) honest() {
	w.t.Helper()
	before, _ := w.loop.State()
	if ready, _ := before.Ready(); !ready {
		return
	}
	seen, err := w.watcher.Preview(w.t.Context(), before.Plan.NAT)
	labtest.Must(w.t, err)
	after, _ := w.loop.State()
	if ready, _ := after.Ready(); ready && after.Plan == before.Plan && !seen.Equal {
		w.t.Fatalf("it says that it is ready, but the kernel holds another plan: %+v", seen)
	}
}

// check looks whether all is as it must be once nothing fails any more.
func (w *walk) check() {
	w.t.Helper()
	plan := w.converges()
	w.honest()
	w.cov.try(w.t, w.rig, w.rnd, "of the walk", w.want, plan)
}

// TestWalk does things at random to a running agent, with calls that fail, and checks between them: that the node
// is ready only when it is, that it converges once the faults are gone, and that packets are then treated as the
// plan says, so that none leaves as it should not.
func TestWalk(t *testing.T) {
	t.Parallel()
	length := 3 * time.Second
	if s := os.Getenv(walkEnv); s != "" {
		var err error
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("%s: %v", walkEnv, err)
		}
	}
	w := newWalk(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last steps: %s", strings.Join(w.trace[max(0, len(w.trace)-40):], ", "))
		}
	})
	var choice []step
	for _, s := range walkSteps {
		for range s.weight {
			choice = append(choice, s)
		}
	}
	w.putPool()
	w.check()
	goroutines := runtime.NumGoroutine()
	rounds, done := 0, map[string]int{}
	for end := time.Now().Add(length); time.Now().Before(end); rounds++ {
		if w.rnd.IntN(2) == 0 {
			w.storm.blow(1 + w.rnd.IntN(30))
			w.trace = append(w.trace, "STORM")
		}
		tampered := false // since the last check: the node may not know of it yet
		for range 1 + w.rnd.IntN(4) {
			s := pick(w.rnd, choice)
			w.trace = append(w.trace, s.name)
			done[s.name]++
			s.do(w)
			tampered = tampered || s.name == "tampering"
			if !tampered {
				w.honest()
			}
			time.Sleep(time.Duration(w.rnd.IntN(10)) * time.Millisecond)
		}
		w.mend()
		w.trace = append(w.trace, "check")
		w.check()
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d rounds: %v; %d calls failed, %d flows were tried", rounds, done, w.storm.failed, w.cov.flows)
	if n := runtime.NumGoroutine(); n > goroutines+50 {
		t.Errorf("%d goroutines at first, %d at last", goroutines, n)
	}
}
