package nat

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/nfnetlink"
)

// isRefusal says whether the kernel refused something in a transaction, perhaps of one family alone, and so
// changed nothing. A process that may not change anything, or not this table, need not try again in parts.
func isRefusal(err error) bool {
	var r *nfnetlink.Refusal
	var owned *OwnedError
	return errors.As(err, &r) && !errors.As(err, &owned) && !errors.Is(err, unix.EPERM)
}

// applyFamilies brings a plan that was refused as a whole to the kernel one family after the other, so that a
// fault in one never holds the other back. A family that is refused by itself stays as it was. It returns
// why, or whole if neither could be brought there.
func (d *Driver) applyFamilies(ctx context.Context, nat compile.NAT, whole error) error {
	families := []family{ipv4(), ipv6()}
	var failed []error
	for i, f := range families {
		if err := d.applyFamily(ctx, nat, families[1-i]); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	if len(failed) == len(families) {
		return whole
	}
	return errors.Join(failed...)
}

// applyFamily brings a plan to the kernel, but for one family, which stays as it is.
func (d *Driver) applyFamily(ctx context.Context, nat compile.NAT, stays family) error {
	if err := d.read(ctx); err != nil {
		return err
	}
	wanted, err := d.layout(layout(nat))
	if err != nil {
		return err
	}
	if err := wanted.keep(stays, d.held); err != nil {
		return err
	}
	if err := d.converge(ctx, wanted); err != nil {
		d.trusted = false
		return err
	}
	return nil
}

// keep takes what is wanted of a family from what is held. A table that has nothing of the family yet gets
// none of its ranges, and not the rules that translate it.
func (t *table) keep(f family, held *table) error {
	for i := range t.sets {
		s := &t.sets[i]
		if !slices.Contains([]string{setSource + f.suffix, setExempt + f.suffix, setGuarded + f.suffix}, s.name) {
			continue
		}
		s.segments = nil
		if h := held.set(s.name); h != nil && h.spec == s.spec && !h.malformed {
			s.segments = slices.Clone(h.segments)
		}
	}
	name := chainSNAT + f.suffix
	if h := held.chain(name); h == nil || len(h.rules) == 0 {
		t.chain(name).rules = nil
	}
	return t.refitGuard()
}
