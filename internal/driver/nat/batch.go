package nat

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

const (
	// maxChunk is how many bytes of elements go into one message. An attribute holds 64 KiB at most.
	maxChunk = 48 << 10
	// maxEcho is how many changed ranges of a set are echoed: deleted ones so that their last counts are
	// known. The echoes of many more might not fit the receive buffer.
	maxEcho = 1000
)

// batch is a transaction on its way to the kernel: one datagram with a message to begin it, those that
// do something, and one to end it. Messages are numbered from first on, and notes has one for each.
type batch struct {
	buf      []byte
	first    uint32
	notes    []note
	elements int // that the batch adds or deletes
}

// note says what a message does, for the error if the kernel refuses it.
type note struct {
	at       int    // in buf
	doing    string // with the object's name
	feature  string // what the kernel must have for it; "" if nothing special
	set      string // the set whose ranges are added or deleted, or ""
	segments []segment
}

// newBatch begins a transaction.
func newBatch(first uint32) *batch {
	b := &batch{first: first}
	b.notes = append(b.notes, note{doing: "beginning a transaction"})
	at := 0
	b.buf, at = nfnetlink.AppendHeader(b.buf, unix.NFNL_MSG_BATCH_BEGIN, 0, unix.NFPROTO_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, first)
	nfnetlink.EndMessage(b.buf, at)
	return b
}

// count is the number of messages.
func (b *batch) count() int { return len(b.notes) }

// last is the index of the last message that does something.
func (b *batch) last() int { return len(b.notes) - 2 }

// finish ends the transaction. The kernel is to answer its last message, however it ends.
func (b *batch) finish() {
	flags := b.buf[b.notes[len(b.notes)-1].at+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	at := 0
	b.buf, at = nfnetlink.AppendHeader(b.buf, unix.NFNL_MSG_BATCH_END, 0, unix.NFPROTO_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, b.first+uint32(b.count()))
	nfnetlink.EndMessage(b.buf, at)
	b.notes = append(b.notes, note{at: at, doing: "ending a transaction"})
}

// message appends one message about our table; write appends its attributes.
func (b *batch) message(kind, flags uint16, n note, write func()) {
	b.buf, n.at = nfnetlink.AppendHeader(b.buf, subsystem|kind, flags, unix.NFPROTO_INET, 0, b.first+uint32(b.count()))
	write()
	nfnetlink.EndMessage(b.buf, n.at)
	b.notes = append(b.notes, n)
}

func (b *batch) text(kind uint16, s string)   { b.buf = nfnetlink.AppendText(b.buf, kind, s) }
func (b *batch) number(kind uint16, v uint32) { b.buf = nfnetlink.AppendUint32(b.buf, kind, v) }
func (b *batch) nest(kind uint16, inner func()) {
	at := b.open(kind)
	inner()
	nfnetlink.CloseNest(b.buf, at)
}

func (b *batch) open(kind uint16) (at int) {
	b.buf, at = nfnetlink.OpenNest(b.buf, kind)
	return at
}

// write appends the messages that carry out a change.
func (b *batch) write(c *change) {
	if c.rebuild {
		b.deleteTable()
	}
	if c.create {
		n := note{doing: creatingTable, feature: "tables of family inet (nf_tables)"}
		b.addTable(unix.NLM_F_CREATE|unix.NLM_F_EXCL, n, c.flags)
	}
	if c.adopt {
		b.addTable(0, note{doing: "taking over table " + TableName}, c.flags)
	}
	for _, name := range c.emptyChains {
		b.named(unix.NFT_MSG_DELRULE, b.echoFirst(), "emptying chain "+name, unix.NFTA_RULE_CHAIN, name)
	}
	for _, name := range c.emptySets {
		b.named(unix.NFT_MSG_DELSETELEM, 0, "emptying set "+name, unix.NFTA_SET_ELEM_LIST_SET, name)
	}
	for _, d := range c.remove {
		flags := uint16(0)
		if len(d.segments) <= maxEcho {
			flags = unix.NLM_F_ECHO
		}
		b.addElements(unix.NFT_MSG_DELSETELEM, flags, "deleting from", d)
	}
	for _, name := range c.dropSets {
		b.named(unix.NFT_MSG_DELSET, 0, "deleting set "+name, unix.NFTA_SET_NAME, name)
	}
	for _, name := range c.dropChains {
		b.named(unix.NFT_MSG_DELCHAIN, 0, "deleting chain "+name, unix.NFTA_CHAIN_NAME, name)
	}
	for i := range c.newSets {
		b.addSet(&c.newSets[i], uint32(i+1))
	}
	for _, d := range c.add {
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		if len(d.segments) <= maxEcho {
			flags |= b.echoFirst()
		}
		b.addElements(unix.NFT_MSG_NEWSETELEM, flags, "adding to", d)
	}
	for i := range c.newChains {
		b.addChain(&c.newChains[i])
	}
	for i := range c.fill {
		b.addRules(&c.fill[i])
	}
}

// echoFirst is the flag of the first message after the one that begins the transaction. If that is to be
// echoed, the kernel also says which generation the transaction begins; the flags of the message before
// are not asked (nf_tables_gen_notify of net/netfilter/nf_tables_api.c, which is handed the rest).
func (b *batch) echoFirst() uint16 {
	if b.count() > 1 {
		return 0
	}
	return unix.NLM_F_ECHO
}

// creatingTable is what the message that creates our table does.
const creatingTable = "creating table " + TableName

// addTable creates our table, or changes its flags.
func (b *batch) addTable(flags uint16, n note, tableFlags uint32) {
	b.message(unix.NFT_MSG_NEWTABLE, flags, n, func() {
		b.text(unix.NFTA_TABLE_NAME, TableName)
		if tableFlags != 0 {
			b.number(unix.NFTA_TABLE_FLAGS, tableFlags)
		}
	})
}

// deleteTable deletes our table with all that is in it.
func (b *batch) deleteTable() {
	b.message(unix.NFT_MSG_DELTABLE, 0, note{doing: "deleting table " + TableName}, func() { b.text(unix.NFTA_TABLE_NAME, TableName) })
}

// named appends a message that says no more than which object of our table it is about. The table's
// name is attribute 1 whatever the message.
func (b *batch) named(kind, flags uint16, doing string, nameAttr uint16, name string) {
	b.message(kind, flags, note{doing: doing}, func() {
		b.text(unix.NFTA_TABLE_NAME, TableName)
		b.text(nameAttr, name)
	})
}

// addSet appends a message that creates a set. The id is unique within the batch.
func (b *batch) addSet(s *set, id uint32) {
	n := note{doing: "creating set " + s.name, feature: "interval sets with counters"}
	b.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, n, func() {
		b.text(unix.NFTA_SET_TABLE, TableName)
		b.text(unix.NFTA_SET_NAME, s.name)
		b.number(unix.NFTA_SET_FLAGS, s.spec.flags)
		b.number(unix.NFTA_SET_KEY_TYPE, s.spec.keyType)
		b.number(unix.NFTA_SET_KEY_LEN, s.spec.keyLen)
		b.number(unix.NFTA_SET_ID, id)
		if s.spec.expr != "" {
			b.nest(attrSetExpr, func() { b.text(unix.NFTA_EXPR_NAME, s.spec.expr) })
		}
	})
}

// addChain appends a message that creates a chain.
func (b *batch) addChain(c *chain) {
	n := note{doing: "creating chain " + c.name}
	if c.hook.kind == kindNAT {
		n.feature = "chains of type " + c.hook.kind + " (module nft_chain_" + c.hook.kind + ")"
	}
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, n, func() {
		b.text(unix.NFTA_CHAIN_TABLE, TableName)
		b.text(unix.NFTA_CHAIN_NAME, c.name)
		if c.hook.kind == "" {
			return
		}
		b.nest(unix.NFTA_CHAIN_HOOK, func() {
			b.number(unix.NFTA_HOOK_HOOKNUM, c.hook.number)
			b.number(unix.NFTA_HOOK_PRIORITY, uint32(c.hook.priority))
		})
		b.number(unix.NFTA_CHAIN_POLICY, c.hook.policy)
		b.text(unix.NFTA_CHAIN_TYPE, c.hook.kind)
	})
}

// addRules appends a message for each rule of a chain.
func (b *batch) addRules(c *chain) {
	for i, r := range c.rules {
		n := note{doing: fmt.Sprintf("adding rule %d to chain %s", i+1, c.name), feature: r.feature}
		b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, n, func() {
			b.text(unix.NFTA_RULE_TABLE, TableName)
			b.text(unix.NFTA_RULE_CHAIN, c.name)
			b.buf = nfnetlink.AppendAttr(b.buf, unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, r.wire)
		})
	}
}

// addElements appends as many messages as the ranges need. Both ends of a range are in one message.
func (b *batch) addElements(kind, flags uint16, doing string, d difference) {
	for rest := d.segments; len(rest) > 0; {
		n := note{doing: doing + " set " + d.set, set: d.set}
		b.message(kind, flags, n, func() {
			b.text(unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
			b.text(unix.NFTA_SET_ELEM_LIST_SET, d.set)
			done := 0
			b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				for start := len(b.buf); done < len(rest) && len(b.buf)-start < maxChunk; done++ {
					b.addRange(rest[done])
				}
			})
			n.segments, rest = rest[:done], rest[done:]
		})
		b.notes[len(b.notes)-1].segments = n.segments
	}
}

// openEnd is what nft writes into a range without an end, so as to print it well: NFTNL_UDATA_SET_ELEM_FLAGS
// with SET_ELEM_F_INTERVAL_OPEN (libnftnl's include/libnftnl/udata.h, nft's src/intervals.c).
func openEnd() []byte {
	return binary.NativeEndian.AppendUint32([]byte{1, 4}, 1)
}

// addRange appends the elements of one range: its first address, and the one after its last, if any.
func (b *batch) addRange(s segment) {
	next := s.last.Next()
	b.nest(unix.NFTA_LIST_ELEM, func() {
		b.addKey(s.first)
		if !next.IsValid() {
			b.buf = nfnetlink.AppendAttr(b.buf, unix.NFTA_SET_ELEM_USERDATA, openEnd())
		}
	})
	b.elements++
	if !next.IsValid() {
		return
	}
	b.nest(unix.NFTA_LIST_ELEM, func() {
		b.addKey(next)
		b.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	})
	b.elements++
}

func (b *batch) addKey(a netip.Addr) {
	b.nest(unix.NFTA_SET_ELEM_KEY, func() { b.buf = nfnetlink.AppendAttr(b.buf, unix.NFTA_DATA_VALUE, a.AsSlice()) })
}

// explain makes an error of the kernel's answer to the message with an index.
func (b *batch) explain(index int, r nfnetlink.Reply) error {
	n := b.notes[index]
	doing := n.doing
	if s, ok := b.rangeAt(n, r.Offset); ok {
		doing += ": " + s.String()
		if s.pool != "" {
			doing += fmt.Sprintf(" of pool %q", s.pool)
		}
	} else if len(n.segments) > 0 {
		doing += fmt.Sprintf(": one of %d ranges from %s to %s", len(n.segments), n.segments[0], n.segments[len(n.segments)-1])
	}
	err := error(&nfnetlink.Refusal{Doing: doing, Errno: r.Errno, Text: r.Text})
	if index == 0 {
		return nfnetlink.Unsupported("nf_tables", err, unix.EOPNOTSUPP, unix.EINVAL)
	}
	if n.feature != "" {
		return nfnetlink.Unsupported(n.feature, err, unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT)
	}
	return err
}

// rangeAt finds the range whose element is at an offset in a message.
func (b *batch) rangeAt(n note, offset int) (segment, bool) {
	end := len(b.buf) - n.at
	if len(n.segments) == 1 {
		return n.segments[0], true
	}
	if offset <= 0 || offset > end-nfnetlink.AttrHeaderLen || len(n.segments) == 0 {
		return segment{}, false
	}
	size := int(binary.NativeEndian.Uint16(b.buf[n.at+offset:]))
	if size < nfnetlink.AttrHeaderLen || offset+size > end {
		return segment{}, false
	}
	e, err := parseElement(b.buf[n.at+offset+nfnetlink.AttrHeaderLen : n.at+offset+size])
	if err != nil {
		return segment{}, false
	}
	i := slices.IndexFunc(n.segments, func(s segment) bool {
		return !e.end && s.first == e.key || e.end && s.last.Next() == e.key
	})
	if i < 0 {
		return segment{}, false
	}
	return n.segments[i], true
}
