package datastore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/internal/model"
)

// Passwords reads the passwords of BGP sessions. No password is in a State or in what a store saves, nor in an error.
type Passwords interface {
	// Password is the password that a reference names, as it is at this moment; empty: the reference is optional, and names none.
	Password(ctx context.Context, ref model.BGPPassword) (string, error)
}

// maxPassword is how many bytes the kernel takes (TCP_MD5SIG_MAXKEYLEN in linux/tcp.h).
const maxPassword = 80

// PasswordOf is the password in what was read. A line's end after it, as editors and commands write one, is no part of it.
func PasswordOf(read []byte) (string, error) {
	b := bytes.TrimSuffix(bytes.TrimSuffix(read, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		return "", errors.New("is empty: write the password into it")
	case len(b) > maxPassword:
		return "", fmt.Errorf("has more than the %d bytes that the kernel takes: choose a shorter password, here and at the peer", maxPassword)
	case bytes.ContainsAny(b, "\n\x00"):
		return "", errors.New("has more than one line, or a byte 0: write the password alone into it")
	}
	return string(b), nil
}
