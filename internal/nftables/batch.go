package nftables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/nfnetlink"
)

const (
	// maxChunk is how many bytes of elements go into one message. An attribute holds 64 KiB at most.
	maxChunk = 48 << 10
	// maxEcho is how many deleted elements of a set are echoed, so that their last counts are known. The echoes of
	// many more might not fit the receive buffer.
	maxEcho = 1000
)

// batch is a transaction on its way to the kernel: one datagram with a message to begin it, those that
// do something, and one to end it. Messages are numbered from first on, and notes has one for each.
type batch struct {
	table    string
	family   uint8
	buf      []byte
	first    uint32
	notes    []note
	elements int // that the batch adds or deletes
}

// note says what a message does, for the error if the kernel refuses it.
type note struct {
	at       int        // in buf
	doing    string     // with the object's name
	feature  string     // what the kernel must have for it; "" if nothing special
	elements difference // that are added or deleted
}

// newBatch begins a transaction.
func newBatch(table string, family uint8, first uint32) *batch {
	b := &batch{table: table, family: family, first: first}
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
	b.buf, n.at = nfnetlink.AppendHeader(b.buf, subsystem|kind, flags, b.family, 0, b.first+uint32(b.count()))
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
		n := note{doing: creatingTable + b.table, feature: "tables of family " + tableFamily(b.family) + " (nf_tables)"}
		b.addTable(unix.NLM_F_CREATE|unix.NLM_F_EXCL, n, c.flags)
	}
	if c.adopt {
		b.addTable(0, note{doing: "taking over table " + b.table}, c.flags)
	}
	for _, name := range c.emptyChains {
		b.named(unix.NFT_MSG_DELRULE, b.echoFirst(), "emptying chain "+name, unix.NFTA_RULE_CHAIN, name)
	}
	for _, name := range c.emptySets {
		b.named(unix.NFT_MSG_DELSETELEM, 0, "emptying set "+name, unix.NFTA_SET_ELEM_LIST_SET, name)
	}
	for _, d := range c.remove {
		flags := b.echoFirst()
		if d.set.Counters && len(d.at) <= maxEcho {
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
	for i := range c.newChains {
		b.addChain(&c.newChains[i])
	}
	for i, s := range c.newSets {
		b.addSet(s, uint32(i+1))
	}
	for _, d := range c.add {
		flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
		if len(d.at) <= maxEcho {
			flags |= b.echoFirst()
		}
		b.addElements(unix.NFT_MSG_NEWSETELEM, flags, "adding to", d)
	}
	for i := range c.newHooks {
		b.addChain(&c.newHooks[i])
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

// CreatingChain and the chain's name is what the message that creates it does (nfnetlink.Refusal).
const CreatingChain = "creating chain "

// creatingTable and the table's name is what the message that creates it does.
const creatingTable = "creating table "

// addTable creates our table, or changes its flags.
func (b *batch) addTable(flags uint16, n note, tableFlags uint32) {
	b.message(unix.NFT_MSG_NEWTABLE, flags, n, func() {
		b.text(unix.NFTA_TABLE_NAME, b.table)
		if tableFlags != 0 {
			b.number(unix.NFTA_TABLE_FLAGS, tableFlags)
		}
	})
}

// deleteTable deletes our table with all that is in it.
func (b *batch) deleteTable() {
	b.message(unix.NFT_MSG_DELTABLE, 0, note{doing: "deleting table " + b.table}, func() { b.text(unix.NFTA_TABLE_NAME, b.table) })
}

// named appends a message that says no more than which object of our table it is about. The table's
// name is attribute 1 whatever the message.
func (b *batch) named(kind, flags uint16, doing string, nameAttr uint16, name string) {
	b.message(kind, flags, note{doing: doing}, func() {
		b.text(unix.NFTA_TABLE_NAME, b.table)
		b.text(nameAttr, name)
	})
}

// addSet appends a message that creates a set. The id is unique within the batch.
func (b *batch) addSet(s *Set, id uint32) {
	n := note{doing: "creating set " + s.Name, feature: s.feature()}
	b.message(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, n, func() {
		b.text(unix.NFTA_SET_TABLE, b.table)
		b.text(unix.NFTA_SET_NAME, s.Name)
		b.number(unix.NFTA_SET_FLAGS, s.flags())
		b.number(unix.NFTA_SET_KEY_TYPE, keyType(s.Key))
		b.number(unix.NFTA_SET_KEY_LEN, uint32(keySize(s.Key)))
		b.number(unix.NFTA_SET_ID, id)
		switch s.Data {
		case 0:
		case Verdicts:
			b.number(unix.NFTA_SET_DATA_TYPE, dataVerdict)
		default:
			b.number(unix.NFTA_SET_DATA_TYPE, uint32(s.Data))
			b.number(unix.NFTA_SET_DATA_LEN, uint32(s.Data.size()))
		}
		if s.Ranges && s.concat() {
			b.nest(unix.NFTA_SET_DESC, func() { b.nest(attrSetDescConcat, func() { b.addFields(s.Key) }) })
		}
		if orders := s.byteOrders(); orders != nil {
			b.buf = nfnetlink.AppendAttr(b.buf, unix.NFTA_SET_USERDATA, orders)
		}
		if s.Counters {
			b.nest(attrSetExpr, func() { b.text(unix.NFTA_EXPR_NAME, counterExpr) })
		}
	})
}

// addFields appends the lengths of a concatenation's fields.
func (b *batch) addFields(types []Type) {
	for _, t := range types {
		b.nest(unix.NFTA_LIST_ELEM, func() { b.number(attrFieldLen, uint32(t.size())) })
	}
}

// feature says what the kernel must have for a set.
func (s *Set) feature() string {
	name := "sets"
	if s.Data != 0 {
		name = "maps"
	}
	if s.Data == Verdicts {
		name = "verdict maps"
	}
	if s.Ranges {
		name = "interval " + name
	}
	if s.concat() {
		name += " of concatenations"
	}
	if s.Counters {
		name += " with counters"
	}
	return name
}

// byteOrders is what nft must be told to print keys and data in the order of the host; nil if there are none
// (NFTNL_UDATA_SET_KEYBYTEORDER and NFTNL_UDATA_SET_DATABYTEORDER of libnftnl's include/libnftnl/udata.h, and
// BYTEORDER_HOST_ENDIAN of nft's include/datatype.h).
func (s *Set) byteOrders() []byte {
	var b []byte
	for kind, t := range []Type{s.Key[0], s.Data} {
		if t.hostOrder() && (kind == 1 || !s.concat()) {
			b = binary.NativeEndian.AppendUint32(append(b, byte(kind), 4), 1)
		}
	}
	return b
}

// addChain appends a message that creates a chain.
func (b *batch) addChain(c *Chain) {
	n := note{doing: CreatingChain + c.Name}
	if c.Hook.Kind == KindNAT {
		n.feature = "chains of type " + c.Hook.Kind + " (module nft_chain_" + c.Hook.Kind + ")"
	}
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, n, func() {
		b.text(unix.NFTA_CHAIN_TABLE, b.table)
		b.text(unix.NFTA_CHAIN_NAME, c.Name)
		if c.Hook.Kind == "" {
			return
		}
		b.nest(unix.NFTA_CHAIN_HOOK, func() {
			b.number(unix.NFTA_HOOK_HOOKNUM, c.Hook.Number)
			b.number(unix.NFTA_HOOK_PRIORITY, uint32(c.Hook.Priority))
			if c.Hook.Device != "" {
				b.text(unix.NFTA_HOOK_DEV, c.Hook.Device)
			}
		})
		policy := uint32(verdictAccept)
		if c.Hook.Drop {
			policy = verdictDrop
		}
		b.number(unix.NFTA_CHAIN_POLICY, policy)
		b.text(unix.NFTA_CHAIN_TYPE, c.Hook.Kind)
	})
}

// addRules appends a message for each rule of a chain.
func (b *batch) addRules(c *Chain) {
	for i, r := range c.Rules {
		n := note{doing: fmt.Sprintf("adding rule %d to chain %s", i+1, c.Name), feature: r.feature}
		b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, n, func() {
			b.text(unix.NFTA_RULE_TABLE, b.table)
			b.text(unix.NFTA_RULE_CHAIN, c.Name)
			b.buf = nfnetlink.AppendAttr(b.buf, unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, r.wire)
		})
	}
}

// addElements appends as many messages as the elements need. Both ends of a range are in one message.
func (b *batch) addElements(kind, flags uint16, doing string, d difference) {
	for rest := d.at; len(rest) > 0; {
		done := 0
		b.message(kind, flags, note{doing: doing + " set " + d.set.Name}, func() {
			b.text(unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
			b.text(unix.NFTA_SET_ELEM_LIST_SET, d.set.Name)
			b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				for start := len(b.buf); done < len(rest) && len(b.buf)-start < maxChunk; done++ {
					b.addElement(d.set, int(rest[done]))
				}
			})
		})
		b.notes[len(b.notes)-1].elements = difference{d.set, rest[:done]}
		rest = rest[done:]
	}
}

// openEnd is what nft writes into a range without an end, so as to print it well: NFTNL_UDATA_SET_ELEM_FLAGS
// with SET_ELEM_F_INTERVAL_OPEN (libnftnl's include/libnftnl/udata.h, nft's src/intervals.c).
func openEnd() []byte {
	return binary.NativeEndian.AppendUint32([]byte{1, 4}, 1)
}

// addElement appends an element of a set; in one of halves, that with the first key of the range, and that with the
// key after its last, if there is one.
func (b *batch) addElement(s *Set, i int) {
	first, last := s.key(i)
	open := false
	var next [maxKey]byte
	if s.halves() {
		open = !after(next[:copy(next[:], last)])
	}
	elem := b.open(unix.NFTA_LIST_ELEM)
	b.addValue(unix.NFTA_SET_ELEM_KEY, first)
	if s.Ranges && s.concat() {
		b.addValue(attrElemKeyEnd, last)
	}
	switch s.Data {
	case 0:
	case Verdicts:
		b.addVerdict(s.verdict(i))
	default:
		b.addValue(unix.NFTA_SET_ELEM_DATA, s.data(i))
	}
	if open {
		b.buf = nfnetlink.AppendAttr(b.buf, unix.NFTA_SET_ELEM_USERDATA, openEnd())
	}
	nfnetlink.CloseNest(b.buf, elem)
	b.elements++
	if !s.halves() || open {
		return
	}
	elem = b.open(unix.NFTA_LIST_ELEM)
	b.addValue(unix.NFTA_SET_ELEM_KEY, next[:len(last)])
	b.number(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	nfnetlink.CloseNest(b.buf, elem)
	b.elements++
}

// maxKey is the length of the longest key that is no concatenation.
const maxKey = 16

func (b *batch) addValue(kind uint16, value []byte) {
	at := b.open(kind)
	b.buf = nfnetlink.AppendAttr(b.buf, unix.NFTA_DATA_VALUE, value)
	nfnetlink.CloseNest(b.buf, at)
}

func (b *batch) addVerdict(v Verdict) {
	data := b.open(unix.NFTA_SET_ELEM_DATA)
	at := b.open(unix.NFTA_DATA_VERDICT)
	b.number(unix.NFTA_VERDICT_CODE, uint32(v.code))
	if v.chain != "" {
		b.text(unix.NFTA_VERDICT_CHAIN, v.chain)
	}
	nfnetlink.CloseNest(b.buf, at)
	nfnetlink.CloseNest(b.buf, data)
}

// explain makes an error of the kernel's answer to the message with an index.
func (b *batch) explain(index int, r nfnetlink.Reply) error {
	n := b.notes[index]
	doing := n.doing
	if i, ok := b.elementAt(n, r.Offset); ok {
		doing += ": " + n.elements.set.labelled(i)
	} else if d := n.elements; len(d.at) > 0 {
		doing += fmt.Sprintf(": one of %d elements from %s to %s", len(d.at), d.set.text(int(d.at[0]), false), d.set.text(int(d.at[len(d.at)-1]), false))
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

// elementAt finds the element that is at an offset in a message.
func (b *batch) elementAt(n note, offset int) (int, bool) {
	end := len(b.buf) - n.at
	set, list := n.elements.set, n.elements.at
	if len(list) == 1 {
		return int(list[0]), true
	}
	if offset <= 0 || offset > end-nfnetlink.AttrHeaderLen || len(list) == 0 {
		return 0, false
	}
	size := int(binary.NativeEndian.Uint16(b.buf[n.at+offset:]))
	if size < nfnetlink.AttrHeaderLen || offset+size > end {
		return 0, false
	}
	e, err := parseElement(b.buf[n.at+offset+nfnetlink.AttrHeaderLen : n.at+offset+size])
	if err != nil {
		return 0, false
	}
	i := slices.IndexFunc(list, func(i int32) bool {
		first, last := set.key(int(i))
		if e.end {
			next := slices.Clone(last)
			return after(next) && bytes.Equal(next, e.key)
		}
		return bytes.Equal(first, e.key) && (e.keyEnd == nil || bytes.Equal(last, e.keyEnd))
	})
	if i < 0 {
		return 0, false
	}
	return int(list[i]), true
}
