// Package nfnetlink speaks netfilter's netlink protocol: it writes and reads messages and their attributes,
// carries them over a socket, and tells of a dump that was interrupted, of an answer that was lost and of
// one that refuses. It knows nothing of what the messages are about: drivers do. What is common to all netlink protocols serves
// internal/rtnetlink too.
//
// It exists beside github.com/mdlayher/netlink, whose connection it uses, since drivers must know more than
// a library's calls tell: which message of a transaction was refused and for which attribute, whether a dump
// was changed under way (NLM_F_DUMP_INTR), and whether an error came before or after the kernel acted. Tests put
// failures in between by wrapping a Socket.
package nfnetlink
