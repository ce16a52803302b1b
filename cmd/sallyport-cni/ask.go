package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/sallyport/sallyport/internal/cni"
)

const (
	// window is how long ADD waits for an agent that is away, as while it is upgraded.
	window     = 10 * time.Second
	firstPause = 10 * time.Millisecond
	longest    = 500 * time.Millisecond
)

// once asks, and returns what the agent says against it.
func once(socket string, r *cni.Request, files ...*os.File) error {
	_, err := ask(context.Background(), socket, r, files...)
	return err
}

// ask returns the agent's error as one.
func ask(ctx context.Context, socket string, r *cni.Request, files ...*os.File) (*cni.Result, error) {
	answer, err := cni.Ask(ctx, socket, r, files...)
	if err != nil {
		return nil, err
	}
	if answer.Error != nil {
		return nil, answer.Error
	}
	return answer.Result, nil
}

// persist asks for an ADD until an agent answers, or the window is over.
func persist(ctx context.Context, socket string, r *cni.Request, files []*os.File) (*cni.Result, error) {
	end := time.Now().Add(window)
	undo := *r
	undo.Verb = cni.Del
	lost := false
	for pause := firstPause; ; pause = min(2*pause, longest) {
		var err error
		if lost { // an agent that went away may have done half of it, or all
			_, err = ask(ctx, socket, &undo)
		}
		if err == nil {
			var made *cni.Result
			if made, err = ask(ctx, socket, r, files...); err == nil {
				if made == nil || len(made.Addresses) == 0 {
					return nil, errors.New("the agent answered ADD without an address")
				}
				return made, nil
			}
			lost = errors.Is(err, cni.ErrLost)
		}
		if !errors.Is(err, cni.ErrAway) && !errors.Is(err, cni.ErrLost) || time.Now().Add(pause).After(end) {
			return nil, err
		}
		time.Sleep(pause)
	}
}
