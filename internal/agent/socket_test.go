package agent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
)

func TestASocketOfADeadAgentIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "made", "agent.sock")
	dead, err := listenSocket(t.Context(), path, "--socket", 0o660)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false) // as after SIGKILL
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := listenSocket(t.Context(), path, "--socket", 0o660)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	st, err := os.Stat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o660 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
}

func TestNoFileIsTakenForASocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.sock")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := listenSocket(t.Context(), path, "--socket", 0o660)
	if err == nil {
		_ = l.Close()
		t.Error("listening where a file stands")
	} else if !strings.Contains(err.Error(), "--socket") {
		t.Errorf("the error names no remedy: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Fatalf("the file holds %q, %v", b, err)
	}
}

// One that hangs must not make everybody hang who only asks whether there is one.
func TestAnAgentThatDoesNotAnswerRuns(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answer := make(chan error, 1)
	go func() {
		second, err := listenSocket(t.Context(), path, "--socket", 0o660)
		if err == nil {
			_ = second.Close()
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		if err == nil || !strings.Contains(err.Error(), "another agent") {
			t.Fatalf("a second agent: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("no answer within 5 s")
	}
}

// explain decides by the manifests all the same, so it must not wait for long.
func TestExplainGivesUpSoonOnAnAgentThatHangs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answer := make(chan error, 1)
	go func() {
		_, err := NewClient(path).Explain(t.Context(), compile.Flow{})
		answer <- err
	}()
	select {
	case err := <-answer:
		if err == nil || !strings.Contains(err.Error(), "gives no answer") {
			t.Errorf("said %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("no answer within 20 s")
	}
}

// TestNoAgentIsKnownWithoutTime: whether an agent runs is found out also where no time to wait for it is left.
func TestNoAgentIsKnownWithoutTime(t *testing.T) {
	t.Parallel()
	if _, err := NewClient(filepath.Join(t.TempDir(), "none.sock")).Wait(t.Context(), nil, 0); !errors.Is(err, ErrNoAgent) {
		t.Error(err)
	}
}
