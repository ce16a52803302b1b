package nat

import (
	"net/netip"
	"reflect"
	"testing"

	"go4.org/netipx"

	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/model"
)

// TestEqualNATKnowsEveryField gives each field of a plan another value: one that is not compared would never
// reach the kernel by itself.
func TestEqualNATKnowsEveryField(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddr("192.0.2.1")
	r := netipx.IPRangeFrom(a, a)
	full := reflect.ValueOf(compile.NAT{
		Sources: []compile.Source{{Range: r, Pool: "p"}}, Exempt: []netipx.IPRange{r}, OutInterfaces: []string{"eth0"}, To4: a, To6: a,
		Ports: model.PortRange{First: 1, Last: 2}, UDPPorts: model.PortRange{First: 1, Last: 2}, Allocation: model.PortsRandom,
		LeakGuard: true, ExistingFlows: "x",
	})
	for i := range full.NumField() {
		name := full.Type().Field(i).Name
		if full.Field(i).IsZero() {
			t.Fatalf("this test has no value for %s yet", name)
		}
		var empty, one compile.NAT
		reflect.ValueOf(&one).Elem().Field(i).Set(full.Field(i))
		if equalNAT(&empty, &one) || !equalNAT(&one, &one) {
			t.Errorf("plans that differ in %s are taken for equal", name)
		}
	}
	other := []compile.Source{{Range: r, Pool: "q"}}
	if equalNAT(&compile.NAT{Sources: other}, &compile.NAT{Sources: []compile.Source{{Range: r, Pool: "p"}}}) {
		t.Error("plans whose ranges belong to other pools are taken for equal: their counters would be too")
	}
}
