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
	Edited(ctx context.Context, keys []datastore.Key) (*model.Fault, manifest.Others, error)
}

// DirectoryRequest asks for the directory of manifests before a command edits these objects.
type DirectoryRequest struct {
	Objects []ObjectDigest `json:"objects,omitempty"` // without a digest
}

// DirectoryResponse is what the agent knows of the directory of manifests that it watches.
type DirectoryResponse struct {
	Dir string `json:"dir"`
	// Identity is which directory the agent has found there: another process may see another one.
	Identity manifest.DirIdentity `json:"identity"`
	// Fault is what is wrong with the directory itself; absent where nothing is.
	Fault *model.Fault `json:"fault,omitempty"`
	// Others are files that declare none of the objects that were asked for; absent where the manifests have a fault, or were
	// not read as they are.
	Others manifest.Others `json:"others,omitempty"`
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
	store, keys, ok := a.askedForManifests(w, r)
	if !ok {
		return
	}
	look, cancel := context.WithTimeout(r.Context(), lookPatience)
	defer cancel()
	fault, others, err := store.Edited(look, keys)
	held := a.resources.get()
	out := DirectoryResponse{Dir: a.store.Contact().Where, Identity: held.Dir, Fault: fault}
	switch {
	case err != nil: // what was published last is the answer
		out.Fault = faultOf(out.Dir, held)
	case asDeclared(held):
		out.Others = others
	}
	reply(w, out)
}

func (a *Agent) serveForget(w http.ResponseWriter, r *http.Request) {
	store, keys, ok := a.askedForManifests(w, r)
	if !ok {
		return
	}
	if err := store.Forget(r.Context(), keys); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	reply(w, struct{}{})
}

// askedForManifests is the store and the objects of a DirectoryRequest. Where it is not ok, the request was refused.
func (a *Agent) askedForManifests(w http.ResponseWriter, r *http.Request) (store directory, keys []datastore.Key, ok bool) {
	if store, ok = a.store.(directory); !ok {
		http.Error(w, noManifests, http.StatusNotFound)
		return nil, nil, false
	}
	var req DirectoryRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&req); err != nil {
		http.Error(w, "reading the request: "+err.Error(), http.StatusBadRequest)
		return nil, nil, false
	}
	for _, o := range req.Objects {
		keys = append(keys, datastore.Key{Kind: o.Kind, Name: o.Name})
	}
	return store, keys, true
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

// Directory asks for the directory of manifests that the agent watches, and the files in it that declare none of these
// objects.
func (c *Client) Directory(ctx context.Context, keys []datastore.Key) (*DirectoryResponse, error) {
	var r DirectoryResponse
	return &r, c.callWithin(ctx, lookPatience+glance, http.MethodPost, "/v1/directory", requestFor(keys), &r, maxList)
}

// Forget asks the agent to take out of force objects that its directory lacks, and that are held since it is another one than
// that from which they were read: all of them or none.
func (c *Client) Forget(ctx context.Context, keys []datastore.Key) error {
	var nothing struct{}
	return c.callWithin(ctx, patience, http.MethodPost, "/v1/forget", requestFor(keys), &nothing, maxAnswer)
}

func requestFor(keys []datastore.Key) DirectoryRequest {
	req := DirectoryRequest{Objects: make([]ObjectDigest, len(keys))}
	for i, k := range keys {
		req.Objects[i] = ObjectDigest{Kind: k.Kind, Name: k.Name}
	}
	return req
}
