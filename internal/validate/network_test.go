package validate

import (
	"testing"

	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate/validatetest"
)

func TestCreateNetwork(t *testing.T) {
	t.Parallel()
	v := newValidator(t)
	for _, table := range []struct {
		cases    []validatetest.Case
		document func(string) string
	}{
		{validatetest.Reservations(), validatetest.Reservation},
		{validatetest.NetworkConfigurations(), validatetest.NetworkConfiguration},
		{validatetest.Blocks(), validatetest.Block},
		{validatetest.BGPPeers(), validatetest.BGPPeer},
		{validatetest.BGPFilters(), validatetest.BGPFilter},
		{validatetest.BGPConfigurations(), validatetest.BGPConfiguration},
	} {
		for _, test := range table.cases {
			run(t, table.document(test.Text), v.Create, test.Field, test.Message)
		}
	}
	for _, test := range validatetest.BlockUpdates() {
		old := decode(t, validatetest.Block(test.Old))
		run(t, validatetest.Block(test.New), func(obj map[string]any) []model.Fault { return v.Update(obj, old) }, test.Field, test.Message)
	}
}
