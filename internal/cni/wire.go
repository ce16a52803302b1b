package cni

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// MaxDocument is how long a request or an answer may be, in bytes.
const MaxDocument = 1 << 20

const (
	header = 4 // bytes of a document's length
	// grace is how long the plugin waits for an answer after the agent should have given up, for the way of both.
	grace = 5 * time.Second
)

// Ask sends a request with its files to the agent that listens on a socket, and returns the answer. The error is an ErrAway
// where no agent listens, an ErrLost where the connection broke off, and otherwise about the request itself.
func Ask(ctx context.Context, socket string, r *Request, files ...*os.File) (*Answer, error) {
	doc, err := marshal(r)
	if err != nil {
		return nil, fmt.Errorf("writing the request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, Patience(r.Verb)+grace)
	defer cancel()
	// Not a net.Dialer, which brings the resolver of names into the plugin: a connection here is made at once, or not at all.
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := send(conn, doc, files); err != nil {
		return nil, fmt.Errorf("%w: sending the request: %w", ErrLost, err)
	}
	answer, _, err := receive(conn, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLost, errors.Join(err, ctx.Err()))
	}
	return ParseAnswer(answer)
}

// Receive reads the request on a connection, and the files that come with it, which the caller closes. A request that is
// malformed, or has the wrong number of files, is an *Error, which the caller can answer.
func Receive(conn *net.UnixConn) (*Request, []*os.File, error) {
	doc, files, err := receive(conn, Files(Add))
	var r *Request
	if err == nil {
		r, err = ParseRequest(doc)
	}
	if err == nil && len(files) != Files(r.Verb) {
		err = &Error{Code: CodeFailed, Message: fmt.Sprintf("%d descriptors came with the request, not the %d of %s", len(files), Files(r.Verb), r.Verb)}
	}
	if err != nil {
		Close(files)
		return nil, nil, err
	}
	return r, files, nil
}

// Reply writes the answer to a connection.
func Reply(conn *net.UnixConn, a *Answer) error {
	doc, err := marshal(a)
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return send(conn, doc, nil)
}

// Close closes files that were read from.
func Close(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// marshal returns a document with its length before it.
func marshal(v any) ([]byte, error) {
	doc, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(doc) > MaxDocument {
		return nil, fmt.Errorf("it has %d bytes, more than the %d that are allowed", len(doc), MaxDocument)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(doc))), doc...), nil
}

func send(conn *net.UnixConn, doc []byte, files []*os.File) error {
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(doc, rights, nil)
	if err == nil && n < len(doc) {
		_, err = conn.Write(doc[n:])
	}
	return err
}

// receive reads a document, and the files that come with its first byte. The kernel drops those that come later, and the
// files are an error where they are more than most.
func receive(conn *net.UnixConn, most int) (_ []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			Close(files)
			files = nil
		}
	}()
	var length [header]byte
	oob := make([]byte, unix.CmsgSpace(most*4))
	n, oobn, flags, _, err := conn.ReadMsgUnix(length[:], oob)
	if n > 0 || oobn > 0 {
		var wrong error
		files, wrong = rights(oob[:oobn])
		if err = errors.Join(err, wrong); err == nil && (flags&unix.MSG_CTRUNC != 0 || len(files) > most) {
			err = &Error{Code: CodeFailed, Message: fmt.Sprintf("more than %d descriptors came with the document", most)}
		}
	}
	if err != nil {
		return nil, files, err
	}
	if _, err := io.ReadFull(conn, length[n:]); err != nil {
		return nil, files, fmt.Errorf("reading the length of the document: %w", err)
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > MaxDocument {
		return nil, files, &Error{Code: CodeFailed, Message: fmt.Sprintf("a document of %d bytes is longer than the %d that are allowed", size, MaxDocument)}
	}
	doc := make([]byte, size)
	if _, err := io.ReadFull(conn, doc); err != nil {
		return nil, files, fmt.Errorf("reading the document: %w", err)
	}
	return doc, files, nil
}

// rights takes the files out of what came beside the bytes. Files are returned also with an error.
func rights(oob []byte) (files []*os.File, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("reading the descriptors: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, fmt.Errorf("reading the descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
