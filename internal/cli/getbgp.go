package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

func tableBGPPeers(w io.Writer, l *datastore.Loaded, named map[string]bool, wide bool) {
	fmt.Fprint(w, "NAME\tNODES\tPEER\tASN\tFILTERS")
	if wide {
		fmt.Fprint(w, "\tLOCALASN\tPASSWORD\tTTLSECURITY\tIGNORED")
	}
	fmt.Fprintln(w)
	for i := range l.Snapshot.BGPPeers {
		p := &l.Snapshot.BGPPeers[i]
		if !named[p.Name] {
			continue
		}
		say(w, "%s\t%s\t%s\t%s\t%s", p.Name, cell(cmp.Or(p.Node, p.NodeSelector)), cell(peerOf(p)), numberOr(p.ASN), list(p.Filters))
		if wide {
			say(w, "\t%s\t%s\t%s\t%s", numberOr(p.LocalASN), passwordOf(p.Password), numberOr(p.TTLSecurity), list(p.Ignored))
		}
		fmt.Fprintln(w)
	}
}

// peerOf is the address of a router, or the selector of nodes.
func peerOf(p *model.BGPPeer) string {
	switch {
	case !p.Address.IsValid():
		return p.PeerSelector
	case p.Port != 0:
		return netip.AddrPortFrom(p.Address, p.Port).String()
	}
	return p.Address.String()
}

// passwordOf says where a password is.
func passwordOf(p model.BGPPassword) string {
	if p == (model.BGPPassword{}) {
		return "-"
	}
	return p.Name + "/" + p.Key
}

func numberOr[T ~uint8 | ~uint16 | ~uint32](n T) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatUint(uint64(n), 10)
}

func tableBGPConfigurations(w io.Writer, l *datastore.Loaded, named map[string]bool, wide bool) {
	fmt.Fprint(w, "NAME\tASN\tPORT\tMESH\tBINDMODE")
	if wide {
		fmt.Fprint(w, "\tPASSWORD\tIGNORED")
	}
	fmt.Fprintln(w)
	for i := range l.Snapshot.BGPConfigurations {
		c := &l.Snapshot.BGPConfigurations[i]
		if !named[c.Name] {
			continue
		}
		bind := "-"
		if c.NodeIP != nil {
			bind = map[bool]string{true: "NodeIP", false: "None"}[*c.NodeIP]
		}
		mesh := "-" // the one for a node says nothing of it
		if c.Name == "default" {
			mesh = strconv.FormatBool(!c.NoMesh)
		}
		say(w, "%s\t%s\t%s\t%s\t%s", c.Name, numberOr(c.ASN), numberOr(c.Port), mesh, bind)
		if wide {
			say(w, "\t%s\t%s", passwordOf(c.MeshPassword), list(c.Ignored))
		}
		fmt.Fprintln(w)
	}
}

func tableBGPFilters(w io.Writer, l *datastore.Loaded, named map[string]bool, _ bool) {
	fmt.Fprintln(w, "NAME\tIMPORTV4\tIMPORTV6\tEXPORTV4\tEXPORTV6")
	for i := range l.Snapshot.BGPFilters {
		if f := &l.Snapshot.BGPFilters[i]; named[f.Name] {
			say(w, "%s\t%d\t%d\t%d\t%d\n", f.Name, len(f.Import4), len(f.Import6), len(f.Export4), len(f.Export6))
		}
	}
}
