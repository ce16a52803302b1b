package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/bgp"
	"github.com/sallyport/sallyport/internal/driver/route"
	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/waiting"
)

// speakerEnv makes this program a speaker.
const speakerEnv = "SALLYPORT_BENCH_SPEAKER"

// order is what a speaker is told, one on a line. It answers each by a line: an error, or nothing.
type order struct {
	Plan *compile.BGP // it is to keep for later
	Do   string       // "apply" this plan, or "rest" as an agent does that has nothing to do
}

// speak speaks BGP and keeps what is learned in the kernel, as an agent does, in a process of its own: gobgp works in the network
// namespace of its process.
func speak(in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	keeper, err := route.NewKeeper(route.Options{Log: log})
	if err != nil {
		return err
	}
	news := make(chan struct{}, 1)
	driver := bgp.New(bgp.Options{Changed: func() { waiting.Signal(news) }, Log: log})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return keeper.Run(ctx) })
	g.Go(func() error { keepLearned(ctx, driver, keeper, news); return nil })
	var plan compile.BGP
	orders := json.NewDecoder(bufio.NewReader(in))
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			stop()
			return errors.Join(driver.Cleanup(context.Background()), g.Wait())
		}
		var failed string
		switch {
		case o.Plan != nil:
			plan = *o.Plan
		case o.Do == "apply":
			if err := driver.Apply(ctx, plan); err != nil {
				failed = fmt.Sprintf("%q", err)
			}
		case o.Do == "rest":
			debug.FreeOSMemory()
		}
		if _, err := fmt.Fprintln(out, failed); err != nil {
			return err
		}
	}
}

// keepLearned is what internal/agent does with what is learned.
func keepLearned(ctx context.Context, driver *bgp.Driver, keeper *route.Keeper, news <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
		}
		learned, complete := driver.Learned()
		routes := make([]route.Learned, 0, len(learned))
		for _, r := range learned {
			routes = append(routes, route.Learned{Prefix: r.Prefix, Hops: r.Hops})
		}
		keeper.Set(routes, complete)
	}
}

// speakerProcess is a speaker in a host.
type speakerProcess struct {
	cmd *exec.Cmd
	to  io.WriteCloser
	in  *bufio.Reader
}

func startSpeaker(ctx context.Context, h *lab.Host) (*speakerProcess, error) {
	cmd := h.Command(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), speakerEnv+"=1", "GOGC=25") // as the agent has it
	cmd.Stderr = os.Stderr
	to, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &speakerProcess{cmd, to, bufio.NewReader(in)}, h.Start(cmd)
}

// send gives an order, and does not wait.
func (s *speakerProcess) send(o order) error { return json.NewEncoder(s.to).Encode(o) }

// answer waits until an order is carried out.
func (s *speakerProcess) answer() error {
	line, err := s.in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the speaker has ended: %w", err)
	}
	if line != "\n" {
		return errors.New(line)
	}
	return nil
}

// do gives orders, and waits until each is carried out.
func (s *speakerProcess) do(orders ...order) error {
	for _, o := range orders {
		if err := errors.Join(s.send(o), s.answer()); err != nil {
			return err
		}
	}
	return nil
}

func (s *speakerProcess) stop() error { return errors.Join(s.to.Close(), s.cmd.Wait()) }

// memory is what the speaker has resident, rested, and the most that it has had, in MiB.
func (s *speakerProcess) memory() (now, most float64, err error) {
	time.Sleep(time.Second) // what is under way ends before
	if err := s.do(order{Do: "rest"}); err != nil {
		return 0, 0, err
	}
	return memoryOf(s.cmd)
}

func memoryOf(cmd *exec.Cmd) (now, most float64, err error) {
	now, err = memory(cmd.Process.Pid, "VmRSS")
	most, failed := memory(cmd.Process.Pid, "VmHWM")
	return now, most, errors.Join(err, failed)
}
