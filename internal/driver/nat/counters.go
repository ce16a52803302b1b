package nat

import "context"

// Counter is what one pool's addresses have done.
type Counter struct {
	// Connections is the number of connections that were translated, or would have been had the kernel
	// found a free port. It never decreases while the driver lives and the plan has the pool, and includes
	// what the kernel had counted before for ranges that the first plan wanted too.
	Connections uint64
}

// Counters reads how many connections were translated, by pool. Pools of earlier plans may be among them.
// It takes as long as a reading of the source sets; on error the numbers are those last read.
func (d *Driver) Counters(ctx context.Context) (map[string]Counter, error) {
	counts, err := d.Counts(ctx)
	counters := make(map[string]Counter, len(counts))
	for pool, n := range counts {
		counters[pool] = Counter{Connections: n}
	}
	return counters, err
}

// Dropped is how many packets the leak guard has dropped. The numbers never decrease while the driver
// lives, and include what the kernel had counted before.
type Dropped struct {
	Out uint64 // that would have left with an address that is to be translated
	In  uint64 // TCP segments from outside that belong to no connection
}

// Dropped reads how many packets the leak guard has dropped; on error the numbers are those last read.
func (d *Driver) Dropped(ctx context.Context) (Dropped, error) {
	tallies, err := d.Tallies(ctx)
	return Dropped{Out: tallies[chainLeak], In: tallies[chainStray]}, err
}
