package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
)

const (
	startAtMost  = 60 * time.Second // until a server is ready, on a machine that has much else to do
	stopAtMost   = 2 * time.Second  // between SIGTERM and SIGKILL: an API server waits a minute for watches to end
	pollInterval = 10 * time.Millisecond
	logTail      = 16 << 10 // bytes of a server's log that a failed test shows
)

// server is a program of the control plane, which runs or not.
type server struct {
	host  *lab.Host
	name  string
	args  []string
	log   string                      // the file that its output is appended to
	ready func(context.Context) error // says whether it serves

	cmd  *exec.Cmd     // nil while it is not to run
	pid  int           // of cmd, or of the last one
	gone chan struct{} // closed when cmd has ended
}

func newServer(host *lab.Host, dir, name string, ready func(context.Context) error, args ...string) *server {
	return &server{host: host, name: name, args: args, ready: ready, log: filepath.Join(dir, name+".log")}
}

// start runs the program and waits until it serves.
func (s *server) start() error {
	if s.cmd != nil {
		return fmt.Errorf("starting %s: it runs", s.name)
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.name, err)
	}
	defer log.Close() // the program has it
	cmd := s.host.Command(context.Background(), program(s.name), s.args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.host.Start(cmd); err != nil {
		return err
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = cmd.Wait() // how it ended is of no interest: it is to run until it is killed
	}()
	s.cmd, s.pid, s.gone = cmd, cmd.Process.Pid, gone
	return s.await()
}

// await waits until the program serves.
func (s *server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), startAtMost)
	defer cancel()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.gone:
			return fmt.Errorf("starting %s: it ended: %s", s.name, s.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("starting %s: not ready within %s: %w", s.name, startAtMost, err)
		case <-time.After(pollInterval):
		}
	}
}

// stop asks the program to end, makes it end where it takes long, and waits until it is gone. Stopping one that
// does not run does nothing.
func (s *server) stop() error {
	if s.cmd == nil {
		return nil
	}
	if err := s.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.gone:
		s.cmd = nil
		return nil
	case <-time.After(stopAtMost):
		return s.kill()
	}
}

// kill makes the program end at once, and waits until it is gone. Killing one that does not run does nothing.
func (s *server) kill() error {
	if s.cmd == nil {
		return nil
	}
	if err := s.signal(syscall.SIGKILL); err != nil {
		return err
	}
	select {
	case <-s.gone:
		s.cmd = nil
		return nil
	case <-time.After(startAtMost):
		return fmt.Errorf("killing %s: not gone after %s", s.name, startAtMost)
	}
}

// signal sends the program a signal; one that has ended needs none.
func (s *server) signal(by os.Signal) error {
	if err := s.cmd.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s a signal: %w", s.name, err)
	}
	return nil
}

// said is the end of the program's log.
func (s *server) said() string {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-logTail):])
}

// serves says whether a server answers a request with status 200.
func serves(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", url, resp.Status, body)
	}
	return nil
}
