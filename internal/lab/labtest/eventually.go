package labtest

import "time"

// patience is the time after which what Eventually waits for does not come any more, on a machine that has much else to do.
const patience = 30 * time.Second

// Eventually waits until done says nothing, and fails the test with what it said last. It asks again and again, since what other
// programs and the kernel do tells no test of its end.
func Eventually(t TB, done func() (instead string)) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		instead := done()
		if instead == "" {
			return
		}
		if time.Since(start) > patience {
			t.Fatal(instead)
		}
	}
}
