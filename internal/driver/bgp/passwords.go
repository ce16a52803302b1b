package bgp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// reread is how old a password gets before it is read again: a cluster has thousands of nodes, and one API.
const reread = 5 * time.Minute

// A password whose session is down is read again after this part of the time, since the peer may have another one by now, and one that
// could not be read after that part.
const (
	often     = 5
	veryOften = 60
)

// reading is a password, or why it could not be read.
type reading struct {
	password string
	err      error
	at       time.Time
}

// passwordOf is the password of a peer. Sessions that have the same one share a reading. mu is held.
func (d *Driver) passwordOf(ctx context.Context, p *compile.BGPPeer) (string, error) {
	if p.Password == (model.BGPPassword{}) {
		return "", nil
	}
	if d.opts.Password == nil {
		return "", errors.New("it has a password, and this agent can read none")
	}
	r, known := d.known[p.Password]
	lasts := d.opts.Reread
	switch {
	case r.err != nil:
		lasts /= veryOften
	case !d.isUp(p):
		lasts /= often
	}
	if !known || time.Since(r.at) >= lasts {
		r.password, r.err = d.opts.Password(ctx, p.Password)
		r.at = time.Now()
		d.known[p.Password] = r
	}
	if r.err != nil {
		return "", fmt.Errorf("reading its password: %w", r.err)
	}
	return r.password, nil
}

// isUp says whether the session with a peer is up.
func (d *Driver) isUp(p *compile.BGPPeer) bool {
	d.learning.Lock()
	defer d.learning.Unlock()
	return d.history[p.Address].up
}

// readAgain reads the passwords that are due, and resets the sessions that have another one now.
func (d *Driver) readAgain(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.known) > 0 {
		d.bring(ctx)
	}
}
