package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
)

// birdProcess is BIRD in a host.
type birdProcess struct {
	cmd  *exec.Cmd
	conn net.Conn // its control socket
	in   *bufio.Scanner
}

// startBird starts BIRD with a configuration.
func startBird(ctx context.Context, h *lab.Host, dir, config string) (*birdProcess, error) {
	file, socket := filepath.Join(dir, "bird.conf"), filepath.Join(dir, "bird.ctl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := h.Command(ctx, "/usr/sbin/bird", "-f", "-c", file, "-s", socket)
	cmd.Stderr = os.Stderr
	if err := h.Start(cmd); err != nil {
		return nil, fmt.Errorf("%w (run hack/install-deps bird)", err)
	}
	b := &birdProcess{cmd: cmd}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			b.conn, b.in = conn, bufio.NewScanner(conn)
			_, err = b.answer() // its greeting
			return b, err
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("BIRD does not answer: %w", err), b.stop())
		}
	}
}

// ended is the last line of an answer: a code and a space. Codes from 8000 are errors.
var ended = regexp.MustCompile(`^([0-9]{4}) `)

// ask has BIRD carry out a command, by its control socket itself: to start birdc takes longer than what is measured.
func (b *birdProcess) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(b.conn, command); err != nil {
		return "", err
	}
	out, err := b.answer()
	if err != nil {
		return "", fmt.Errorf("BIRD, asked to %q: %w", command, err)
	}
	return out, nil
}

func (b *birdProcess) answer() (out string, err error) {
	for b.in.Scan() {
		line := b.in.Text()
		out += line + "\n"
		if m := ended.FindStringSubmatch(line); m != nil {
			if m[1] >= "8000" {
				return "", errors.New(line)
			}
			return out, nil
		}
	}
	return "", errors.Join(errors.New("the connection ended"), b.in.Err())
}

// routes counts the routes in a table, or in all.
func (b *birdProcess) routes(table string) (int, error) {
	out, err := b.ask("show route count table " + table)
	if err != nil {
		return 0, err
	}
	all := routeCount.FindAllStringSubmatch(out, -1)
	if all == nil {
		return 0, fmt.Errorf("BIRD counts no routes: %s", out)
	}
	return strconv.Atoi(all[len(all)-1][1]) // the last is the sum
}

var routeCount = regexp.MustCompile(`([0-9]+) of [0-9]+ routes for [0-9]+ networks`)

// stop ends BIRD, without a word to its peers.
func (b *birdProcess) stop() error {
	var err error
	if b.conn != nil {
		err = b.conn.Close()
	}
	err = errors.Join(err, b.cmd.Process.Kill())
	_ = b.cmd.Wait() // it says that it was killed
	return err
}

// awaitThat waits until a number is what is wanted.
func awaitThat(what string, want int, every time.Duration, count func() (int, error)) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(every) {
		n, err := count()
		if n == want || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d of %d after a minute", what, n, want)
		}
	}
}
