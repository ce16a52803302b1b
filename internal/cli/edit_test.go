package cli

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/dir"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

// TestEditWithoutAnAnswer edits while an agent that may be there does not say which directory it reads.
func TestEditWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	socket := listening(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", http.StatusServiceUnavailable) })
	for _, args := range []string{"apply -f -", "delete pool private"} {
		_, errs, code := sallyport(t, dir, strings.Replace(pools, "disabled: true", "disabled: false", 1), append(strings.Fields(args), "--socket", socket)...)
		if code != 0 || !strings.Contains(errs, "warning: not checked whether the agent reads "+dir) || !strings.Contains(errs, "not now") {
			t.Errorf("%s: exit code %d, %q", args, code, errs)
		}
	}
}

// TestNoEditOfADirectoryThatTheAgentDoesNotGoBy has agents say in every way how their directory stands.
func TestNoEditOfADirectoryThatTheAgentDoesNotGoBy(t *testing.T) {
	t.Parallel()
	hidden := model.Fault{Message: "is empty, and so lacks"}
	for _, tc := range []struct {
		what    string
		said    func(path string, id manifest.DirIdentity) agent.DirectoryResponse
		refused string
	}{
		{"the same", func(path string, id manifest.DirIdentity) agent.DirectoryResponse {
			return agent.DirectoryResponse{Dir: path, Identity: id}
		}, ""},
		{"another path", func(_ string, _ manifest.DirIdentity) agent.DirectoryResponse {
			return agent.DirectoryResponse{Dir: "/elsewhere", Fault: &hidden}
		}, ""},
		{"another directory", func(path string, id manifest.DirIdentity) agent.DirectoryResponse {
			id.Ino++
			return agent.DirectoryResponse{Dir: path, Identity: id}
		}, "reads another directory"},
		{"a fault", func(path string, id manifest.DirIdentity) agent.DirectoryResponse {
			return agent.DirectoryResponse{Dir: path, Identity: id, Fault: &hidden}
		}, "is empty, and so lacks"},
	} {
		dir := manifests(t, pools)
		id, err := manifest.IdentifyDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		socket := listening(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v1/directory" {
				http.Error(w, "not one of the resources", http.StatusConflict)
				return
			}
			_ = json.NewEncoder(w).Encode(tc.said(dir, id))
		})
		for _, args := range []string{"apply -f -", "delete pool private"} {
			_, errs, code := sallyport(t, dir, strings.Replace(pools, "disabled: true", "disabled: false", 1), append(strings.Fields(args), "--socket", socket)...)
			if (code == 0) != (tc.refused == "") || !strings.Contains(errs, tc.refused) {
				t.Errorf("%s: %s: exit code %d, %q", tc.what, args, code, errs)
			}
		}
		if b, err := os.ReadFile(filepath.Join(dir, "pools.yaml")); err != nil || (string(b) == pools) != (tc.refused != "") {
			t.Errorf("%s: the file holds %q, %v", tc.what, b, err)
		}
	}
}

// TestDeleteConfirmsWhatTheDirectoryLacks asks an agent that holds what its directory lacks.
func TestDeleteConfirmsWhatTheDirectoryLacks(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	var asked agent.DirectoryRequest
	socket := listening(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/directory" {
			_ = json.NewEncoder(w).Encode(agent.DirectoryResponse{Dir: dir, Fault: &model.Fault{Message: "lacks 2"}})
			return
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != "/v1/forget" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		_, _ = w.Write([]byte("{}"))
	})
	out, errs, code := sallyport(t, dir, "", "delete", "pool", "a", "b", "--socket", socket)
	want(t, "output", out, "ippool.projectcalico.org/a deleted\nippool.projectcalico.org/b deleted\n")
	wanted := []agent.ObjectDigest{{Kind: "IPPool", Name: "a"}, {Kind: "IPPool", Name: "b"}}
	if code != 0 || errs != "" || !slices.Equal(asked.Objects, wanted) {
		t.Errorf("exit code %d, %q, asked for %+v", code, errs, asked)
	}
}

// TestDryRunJudgesTheDirectoryAsTheAgentWould keeps a state, and then puts an empty directory in the place of the one from
// which it was read.
func TestDryRunJudgesTheDirectoryAsTheAgentWould(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	path, state := filepath.Join(base, "resources"), filepath.Join(base, "state")
	if err := os.CopyFS(path, os.DirFS(manifests(t, pools))); err != nil {
		t.Fatal(err)
	}
	s, err := dir.Open(dir.Options{Dir: path, StateDir: state, Version: buildVersion(), Log: slog.New(slog.DiscardHandler), Validator: validate.New()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := s.Run(ctx, func(st datastore.State) {
		if st.Snapshot != nil {
			stop()
		}
	}); err != nil {
		t.Fatal(err)
	}
	dry := func() (string, int) {
		_, errs, code := sallyport(t, path, "", "run", "--dry-run", "--state-dir", state)
		return errs, code
	}
	if errs, code := dry(); code != 1 || !strings.Contains(errs, "another sallyport agent uses it") {
		t.Errorf("while an agent that does not answer has the state: exit code %d, %q", code, errs)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if errs, code := dry(); code != 1 || !strings.Contains(errs, "is empty, and so lacks 2 of the 2") {
		t.Errorf("in an empty directory: exit code %d, %q", code, errs)
	}
	socket := answering(t, agent.DirectoryResponse{Dir: path, Fault: &model.Fault{Message: "so the agent says"}})
	if _, errs, code := sallyport(t, path, "", "run", "--dry-run", "--socket", socket); code != 1 || !strings.Contains(errs, "so the agent says") {
		t.Errorf("beside an agent: exit code %d, %q", code, errs)
	}
}
