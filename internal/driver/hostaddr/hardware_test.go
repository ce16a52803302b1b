package hostaddr

import (
	"testing"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// TestHardware: virtual devices have no address that they were made with.
func TestHardware(t *testing.T) {
	t.Parallel()
	host, peer := labtest.NewHost(t, "host"), labtest.NewHost(t, "peer")
	labtest.Must(t, lab.Link(lab.Port{Host: host, Name: "eth0"}, lab.Port{Host: peer, Name: "eth0"}))
	labtest.Must(t, host.Do(func() error {
		got, err := Hardware()
		if len(got) != 0 {
			t.Errorf("a host with a virtual link has the cards %v", got)
		}
		return err
	}))
}
