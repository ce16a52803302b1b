package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/sallyport/sallyport/internal/lab"
)

// pipe runs a program in a host on an input and returns what it prints.
func pipe(ctx context.Context, h *lab.Host, input, name string, args ...string) (string, error) {
	cmd := h.Command(ctx, name, args...)
	if errors.Is(cmd.Err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w (run hack/install-deps nft iptables ipset)", cmd.Err)
	}
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+os.DevNull) // there is nobody else in the host
	var out, failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failure
	if err := h.Start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(failure.String()))
	}
	return out.String(), nil
}

func nftLoad(ctx context.Context, h *lab.Host, ruleset string) error {
	_, err := pipe(ctx, h, ruleset, "nft", "-f", "-")
	return err
}

// tableHandle is the kernel's number of the agent's table: another one if the table was made anew.
func tableHandle(ctx context.Context, h *lab.Host) (string, error) {
	out, err := pipe(ctx, h, "", "nft", "--terse", "--handle", "list", "table", "inet", "sallyport")
	if err != nil {
		return "", err
	}
	_, handle, ok := strings.Cut(out, "# handle ")
	if !ok {
		return "", fmt.Errorf("no handle in what nft says of the table: %.80q", out)
	}
	handle, _, _ = strings.Cut(handle, "\n")
	return handle, nil
}

// whichIptables says which kind of iptables works here. Legacy is preferred: it is what the shapes that are
// compared were made for.
func whichIptables(ctx context.Context) (kind, version string, err error) {
	h, err := lab.NewHost("iptables")
	if err != nil {
		return "", "", err
	}
	defer h.Close()
	var failed []error
	for _, kind := range []string{"legacy", "nft"} {
		_, err := pipe(ctx, h, "*nat\nCOMMIT\n", "iptables-"+kind+"-restore")
		if err != nil {
			failed = append(failed, err)
			continue
		}
		version, err := pipe(ctx, h, "", "iptables-"+kind, "--version")
		return kind, strings.TrimSpace(version), err
	}
	return "", "", fmt.Errorf("no iptables works here: %w", errors.Join(failed...))
}
