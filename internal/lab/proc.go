package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"syscall"
)

// Command is a program that Start runs in the host. It dies with this process, and when ctx is done.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Start starts cmd inside the host. The caller waits for it, as after cmd.Start.
func (h *Host) Start(cmd *exec.Cmd) error {
	return h.Do(func() error {
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("starting %s on host %s: %w", cmd.Path, h.name, err)
		}
		return nil
	})
}

// Listen announces on an address of the host, as net.Listen does.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(context.Background(), network, address)
		return err
	})
	return l, err
}

// ListenPacket announces on an address of the host, as net.ListenPacket does.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := h.Do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(context.Background(), network, address)
		return err
	})
	return c, err
}

// Dial connects from the host. The address is a literal one: names are not resolved inside the host.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := h.Do(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// HTTPClient makes requests from the host, each on a connection of its own.
func (h *Host) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
}
