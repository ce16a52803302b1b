package agent

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/dir"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/validate"
)

// watching is an agent that watches a directory of manifests and answers on a socket, without a kernel.
func watching(t *testing.T, path string) *Client {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := dir.Open(dir.Options{Dir: path, StateDir: filepath.Join(t.TempDir(), "state"), Log: log, Validator: validate.New()})
	labtest.Must(t, err)
	a := &Agent{log: log, store: store, Core: &Core{}, cfg: Config{Datastore: Directory}}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	labtest.Must(t, err)
	var parts sync.WaitGroup
	parts.Go(func() { _ = serve(t.Context(), l, a.socketHandler()) })
	parts.Go(func() { _ = store.Run(t.Context(), func(s datastore.State) { a.resources.set(s) }) })
	t.Cleanup(func() { parts.Wait(); labtest.Must(t, store.Close()) })
	return NewClient(socket)
}

const aPool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\nspec: {cidr: 10.1.0.0/24}\n"

// TestTheAgentSaysHowItsDirectoryStands puts another directory in its place, and confirms that what it lacks is to go.
func TestTheAgentSaysHowItsDirectoryStands(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resources")
	labtest.Must(t, os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "a.yaml"), []byte(aPool), 0o644))
	c := watching(t, path)
	key := []datastore.Key{{Kind: datastore.KindIPPool, Name: "a"}}
	id, err := manifest.IdentifyDir(path)
	labtest.Must(t, err)
	said, err := c.Directory(t.Context(), nil)
	if err != nil || said.Dir != path || said.Identity != id || said.Fault != nil {
		t.Fatalf("%+v, %v", said, err)
	}
	labtest.Must(t, os.WriteFile(filepath.Join(path, "b.yaml"), []byte(strings.NewReplacer("name: a", "name: b", "10.1", "10.2").Replace(aPool)), 0o644))
	for said.Others["b.yaml"] == "" { // until it is long enough ago that it was written
		said, err = c.Directory(t.Context(), key)
		labtest.Must(t, err)
	}
	if now, err := manifest.Stat(filepath.Join(path, "b.yaml")); err != nil || len(said.Others) != 1 || said.Others["b.yaml"] != now.String() {
		t.Errorf("%+v, %v", said, err)
	}
	labtest.Must(t, os.WriteFile(filepath.Join(path, "bad.yaml"), []byte("["), 0o644))
	if said, err = c.Directory(t.Context(), key); err != nil || len(said.Others) != 0 || said.Fault != nil {
		t.Errorf("with a fault: %+v, %v", said, err)
	}
	labtest.Must(t, os.Remove(filepath.Join(path, "bad.yaml")), os.Remove(filepath.Join(path, "b.yaml")))
	for len(said.Others) == 0 { // until b.yaml counts as removed
		said, err = c.Directory(t.Context(), nil)
		labtest.Must(t, err)
	}
	if err := c.Forget(t.Context(), key); err == nil || !strings.Contains(err.Error(), `IPPool "a" is not one of the resources`) {
		t.Errorf("what is declared was forgotten: %v", err)
	}
	labtest.Must(t, os.Rename(path, path+".old"), os.Mkdir(path, 0o755))
	if id, err = manifest.IdentifyDir(path); err != nil {
		t.Fatal(err)
	}
	// At once, though it is published only when its files have had time to come.
	if said, err = c.Directory(t.Context(), nil); err != nil || said.Fault == nil || said.Identity != id || !strings.Contains(said.Fault.Message, "lacks 1 of the 1") {
		t.Errorf("%+v", said)
	}
	labtest.Must(t, c.Forget(t.Context(), key))
	if said, err = c.Directory(t.Context(), nil); err != nil || said.Fault != nil {
		t.Errorf("%+v, %v", said, err)
	}
}
