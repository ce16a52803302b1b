package bgp

import (
	"context"
	"encoding/binary"
	"log/slog"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nftables"
)

// TableName is the name of our table, of family inet. It stands only where BFD watches a peer, and drops packets of BFD that a router has
// forwarded: gobgp, unlike what RFC 5881 (section 5) asks for, takes them. Packets that the node forwards never pass it.
const TableName = "sallyport-bgp"

const (
	chainInput = "input"
	// inputPriority is before the filters of others.
	inputPriority = -150

	portBFD     = 3784 // UDP; of single-hop control packets (RFC 5881, section 4)
	ttlOffset   = 8    // in the IPv4 header (RFC 791)
	hopsOffset  = 7    // in the IPv6 header (RFC 8200)
	ttlOnLink   = 255  // of a packet that no router has forwarded
	destination = 2    // offset of the port in the UDP header
)

// guardTable is the table.
func guardTable() *nftables.Table {
	c := nftables.Chain{Name: chainInput, Tally: true, Hook: nftables.Hook{Kind: nftables.KindFilter, Number: unix.NF_INET_LOCAL_IN, Priority: inputPriority}}
	for _, f := range []struct {
		nftables.Family
		offset uint32
	}{{nftables.IPv4(), ttlOffset}, {nftables.IPv6(), hopsOffset}} {
		c.Rules = append(c.Rules, nftables.NewRule(nftables.InFamily(f.Family), nftables.ProtocolIs(unix.IPPROTO_UDP),
			compare(expr.PayloadBaseTransportHeader, destination, expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, portBFD)),
			compare(expr.PayloadBaseNetworkHeader, f.offset, expr.CmpOpNeq, []byte{ttlOnLink}),
			nftables.Count(), nftables.Drop()))
	}
	return &nftables.Table{Chains: []nftables.Chain{c}}
}

// compare matches packets that have a value, or another one, in a header.
func compare(base expr.PayloadBase, offset uint32, op expr.CmpOp, value []byte) nftables.Term {
	return nftables.Expr(&expr.Payload{OperationType: expr.PayloadLoad, Base: base, Offset: offset, Len: uint32(len(value)), DestRegister: nftables.Reg1},
		&expr.Cmp{Op: op, Register: nftables.Reg1, Data: value})
}

// guard keeps the table.
type guard struct {
	log    *slog.Logger
	engine *nftables.Engine // nil: nothing has been asked of it
	stands bool             // the table is wanted, and stands
	absent bool             // it was looked for, and is not there
}

// put makes the table stand, or removes it, also that of an agent before this one.
func (g *guard) put(ctx context.Context, wanted bool) (err error) {
	if !wanted && g.absent {
		return nil
	}
	if g.engine == nil {
		if g.engine, err = nftables.New(TableName, nftables.Options{Log: g.log}); err != nil {
			return err
		}
	}
	if g.stands, g.absent = false, false; wanted {
		err = g.engine.Apply(ctx, guardTable())
		g.stands = err == nil
		return err
	}
	err = g.engine.Cleanup(ctx)
	g.absent = err == nil
	return err
}

// observe counts what differs from what was put.
func (g *guard) observe(ctx context.Context) (int, error) {
	if !g.stands {
		return 0, nil
	}
	return g.engine.Observe(ctx)
}

// close closes the engine. The table stays as it is.
func (g *guard) close() error {
	if g.engine == nil {
		return nil
	}
	engine := g.engine
	g.engine, g.stands = nil, false
	return engine.Close()
}
