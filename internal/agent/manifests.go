package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/dir"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
	"github.com/sallyport/sallyport/internal/validate"
)

// directory is a store that reads manifests.
type directory interface {
	Forget(ctx context.Context, keys []datastore.Key) error
}

// DirectoryResponse is what the agent knows of the directory of manifests that it watches.
type DirectoryResponse struct {
	Dir string `json:"dir"`
	// Identity is which directory the agent has found there: another process may see another one.
	Identity manifest.DirIdentity `json:"identity"`
	// Fault is what is wrong with the directory itself; absent where nothing is.
	Fault *model.Fault `json:"fault,omitempty"`
}

// ForgetRequest asks the agent to take out of force objects that its directory lacks and that are held since it is another
// one than that from which they were read.
type ForgetRequest struct {
	Objects []ObjectDigest `json:"objects"` // without a digest
}

// faultOf is what is wrong with the directory itself, or nil.
func faultOf(path string, held datastore.State) *model.Fault {
	i := slices.IndexFunc(held.Faults, func(f model.Fault) bool { return f.File == path && f.Kind == "" })
	if i < 0 {
		return nil
	}
	return &held.Faults[i]
}

func (a *Agent) serveDirectory(w http.ResponseWriter, r *http.Request) {
	if a.cfg.Datastore == Kubernetes {
		http.Error(w, noManifests, http.StatusNotFound)
		return
	}
	look, cancel := context.WithTimeout(r.Context(), lookPatience)
	defer cancel()
	_ = a.store.Look(look) // where that takes too long, what was found last is the answer
	held, path := a.resources.get(), a.store.Contact().Where
	reply(w, DirectoryResponse{Dir: path, Identity: held.Dir, Fault: faultOf(path, held)})
}

func (a *Agent) serveForget(w http.ResponseWriter, r *http.Request) {
	store, ok := a.store.(directory)
	if !ok {
		http.Error(w, noManifests, http.StatusNotFound)
		return
	}
	var req ForgetRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&req); err != nil {
		http.Error(w, "reading the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	keys := make([]datastore.Key, len(req.Objects))
	for i, o := range req.Objects {
		keys[i] = datastore.Key{Kind: o.Kind, Name: o.Name}
	}
	if err := store.Forget(r.Context(), keys); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	reply(w, struct{}{})
}

// Foresee is the state of the resources that an agent would come to which starts now with this configuration, on a directory
// of manifests. It changes nothing, and needs no agent.
func Foresee(ctx context.Context, cfg Config) (datastore.State, error) {
	boot, err := bootID()
	if err != nil {
		return datastore.State{}, err
	}
	return dir.Foresee(dirOptions(&cfg, validate.New(), boot, func() (bool, error) {
		d, err := nat.New(nftables.Options{Log: cfg.Log})
		if err != nil {
			return false, err
		}
		defer d.Close()
		return d.Translates(ctx)
	}))
}

// Directory asks for the directory of manifests that the agent watches.
func (c *Client) Directory(ctx context.Context) (*DirectoryResponse, error) {
	var r DirectoryResponse
	return &r, c.callWithin(ctx, lookPatience+glance, http.MethodGet, "/v1/directory", nil, &r, maxAnswer)
}

// Forget asks the agent to take out of force objects that its directory lacks: all of them or none.
func (c *Client) Forget(ctx context.Context, keys []datastore.Key) error {
	req := ForgetRequest{Objects: make([]ObjectDigest, len(keys))}
	for i, k := range keys {
		req.Objects[i] = ObjectDigest{Kind: k.Kind, Name: k.Name}
	}
	var nothing struct{}
	return c.callWithin(ctx, patience, http.MethodPost, "/v1/forget", req, &nothing, maxAnswer)
}
