package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/text"
)

// directoryError is an edit that was refused since something is wrong with the directory of manifests itself.
type directoryError struct{ fault model.Fault }

func (e *directoryError) Error() string {
	return "nothing was changed, since the agent holds the last good state: " + e.fault.String()
}

// editable makes sure that an edit reaches the directory that the agent of this machine goes by, where one answers that
// watches it: its path may lead to what a mount has put there, or left open. It returns the files that the agent has read,
// and that declare none of the objects. Where an agent may be there and does not answer, it warns.
func (g *global) editable(ctx context.Context, warn io.Writer, keys []model.Key) (manifest.Others, error) {
	said, err := g.client().Directory(ctx, keys)
	switch {
	case errors.Is(err, agent.ErrNoAgent):
		return nil, nil
	case err != nil:
		say(warn, "warning: not checked whether the agent reads %s: %s\n", g.dir, err)
		return nil, nil
	case !sameDir(said.Dir, g.dir):
		return nil, nil // it reads another one
	}
	if said.Fault != nil {
		return nil, &directoryError{*said.Fault}
	}
	here, err := manifest.IdentifyDir(g.dir)
	if another := err == nil && here != said.Identity; !another {
		return said.Others, nil // what else is wrong, the edit says
	}
	return nil, fmt.Errorf("nothing was changed: the agent on %s reads another directory at %s than this command finds there, since a mount hides one of the two. "+
		"Mount it for both, or run the command in the mount namespace of the agent", g.socket, text.Line(said.Dir))
}

// sameDir says whether two paths are the same, or lead to the same directory.
func sameDir(a, b string) bool {
	x, err1 := filepath.Abs(a)
	y, err2 := filepath.Abs(b)
	return err1 == nil && err2 == nil && x == y || sameFile(a, b)
}

// remove deletes objects from the directory of manifests. Where it is not the one from which the resources in force were
// read, those that it lacks are deleted from these.
func (g *global) remove(ctx context.Context, warn io.Writer, v manifest.Validator, keys []model.Key) ([]manifest.Result, error) {
	others, err := g.editable(ctx, warn, keys)
	var other *directoryError
	switch {
	case err == nil:
		return manifest.Delete(ctx, g.dir, v, keys, others, false)
	case !errors.As(err, &other):
		return nil, err
	}
	if forgetErr := g.client().Forget(ctx, keys); forgetErr != nil {
		return nil, fmt.Errorf("%w (%w)", err, forgetErr)
	}
	results := make([]manifest.Result, len(keys))
	for i, k := range keys {
		results[i] = manifest.Result{Key: k, Action: manifest.Deleted}
	}
	return results, nil
}
