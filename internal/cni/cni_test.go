package cni

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// The names of devices are what an upgraded agent, and a plugin of another version, find workloads by.
func TestNamesNeverChange(t *testing.T) {
	t.Parallel()
	if got, want := NetworkHash("sallyport"), "a8f956ff"; got != want {
		t.Errorf("NetworkHash is %q, want %q", got, want)
	}
	if got, want := LinkName("a8f956ff", "c0ffee", "eth0"), "sly132e77c545f7"; got != want {
		t.Errorf("LinkName is %q, want %q", got, want)
	}
}

func TestNamesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, name := range []string{LinkName("a", "b", "c"), LinkName("a", "bc", ""), LinkName("ab", "c", ""), LinkName("a", "b", "d"), LinkName("b", "b", "c")} {
		if seen[name] || len(name) != 15 {
			t.Errorf("%q is there twice, or has not 15 characters", name)
		}
		seen[name] = true
	}
}

func add(change func(*Request)) *Request {
	r := &Request{Version: Version, Verb: Add, Network: "sallyport", ContainerID: "c1", Interface: "eth0"}
	if change != nil {
		change(r)
	}
	return r
}

func TestValidate(t *testing.T) {
	t.Parallel()
	addrs := func(texts ...string) (list []netip.Addr) {
		for _, s := range texts {
			list = append(list, netip.MustParseAddr(s))
		}
		return list
	}
	tests := []struct {
		name   string
		change func(*Request)
		code   uint   // 0: valid
		says   string // part of the message
	}{
		{"an ADD", nil, 0, ""},
		{"all of it", func(r *Request) {
			r.Namespace, r.Pod, r.UID, r.Families, r.MTU, r.Addresses = "ns", "pod-1", "0-1", []string{IPv4, IPv6}, 1400, addrs("10.0.0.1", "fd00::1")
		}, 0, ""},
		{"no verb", func(r *Request) { r.Verb = "" }, CodeEnvironment, "CNI_COMMAND"},
		{"no network", func(r *Request) { r.Network = "" }, CodeConfig, "name of the network"},
		{"a path for a network", func(r *Request) { r.Network = "a/b" }, CodeConfig, "name of the network"},
		{"no container", func(r *Request) { r.ContainerID = "" }, CodeEnvironment, "CNI_CONTAINERID"},
		{"a container that is a path", func(r *Request) { r.ContainerID = "../x" }, CodeEnvironment, "CNI_CONTAINERID"},
		{"a long container", func(r *Request) { r.ContainerID = strings.Repeat("a", 256) }, CodeEnvironment, "255"},
		{"no interface", func(r *Request) { r.Interface = "" }, CodeEnvironment, "CNI_IFNAME"},
		{"a long interface", func(r *Request) { r.Interface = "abcdefghijklmnop" }, CodeEnvironment, "CNI_IFNAME"},
		{"an odd interface", func(r *Request) { r.Interface = "a b" }, CodeEnvironment, "CNI_IFNAME"},
		{"no container for STATUS", func(r *Request) { r.Verb, r.ContainerID, r.Interface = Status, "", "" }, 0, ""},
		{"half a pod", func(r *Request) { r.Pod = "p" }, CodeEnvironment, "K8S_POD_NAMESPACE"},
		{"a pod with a line break", func(r *Request) { r.Pod, r.Namespace = "p\n", "n" }, CodeEnvironment, "names no pod"},
		{"another family", func(r *Request) { r.Families = []string{"ipx"} }, CodeConfig, "families"},
		{"a family twice", func(r *Request) { r.Families = []string{IPv4, IPv4} }, CodeConfig, "twice"},
		{"two addresses of a family", func(r *Request) { r.Addresses = addrs("10.0.0.1", "10.0.0.2") }, CodeConfig, "one IPv4 address"},
		{"an address of a family that is not wanted", func(r *Request) { r.Addresses, r.Families = addrs("fd00::1"), []string{IPv4} }, CodeConfig, "lacks IPv6"},
		{"an address with a zone", func(r *Request) { r.Addresses = addrs("fe80::1%eth0") }, CodeConfig, "fe80::1%eth0"},
		{"an IPv4 address in IPv6", func(r *Request) { r.Addresses = addrs("::ffff:10.0.0.1") }, CodeConfig, "::ffff:10.0.0.1"},
		{"no address at all", func(r *Request) { r.Addresses = make([]netip.Addr, 1) }, CodeConfig, "address"},
		{"a small MTU", func(r *Request) { r.MTU = 67 }, CodeConfig, "mtu"},
		{"an MTU for IPv4 alone", func(r *Request) { r.MTU, r.Families = 1279, []string{IPv4} }, 0, ""},
		{"one that IPv6 cannot have", func(r *Request) { r.MTU, r.Families = 1279, []string{IPv6} }, CodeConfig, "1280"},
		{"a large MTU", func(r *Request) { r.MTU = 65536 }, CodeConfig, "mtu"},
		{"an odd attachment", func(r *Request) { r.Verb, r.Attachments = GC, []Attachment{{"a", "b"}, {"c", ""}} }, CodeEnvironment, "CNI_IFNAME"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := add(tt.change).Validate()
			e, _ := errors.AsType[*Error](err)
			switch {
			case tt.code == 0 && err != nil:
				t.Errorf("said %v", err)
			case tt.code != 0 && (e == nil || e.Code != tt.code || !strings.Contains(e.Message, tt.says)):
				t.Errorf("said %v (%+v), want code %d and %q", err, e, tt.code, tt.says)
			}
		})
	}
}

func TestParseRequestRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, doc, says string
		code            uint
	}{
		{"no JSON", `ADD`, "reading", CodeFailed},
		{"a newer version, with what it has", `{"Version":2,"Verb":"ADD","Colour":"red"}`, "speaks version 2 of the protocol, the Sallyport agent version 1", CodeProtocol},
		{"an unknown field", `{"Version":1,"Verb":"STATUS","Network":"a","Colour":"red"}`, "Colour", CodeFailed},
		{"two documents", `{"Version":1,"Verb":"STATUS","Network":"a"}{}`, "invalid character", CodeFailed},
		{"an address that is none", `{"Version":1,"Verb":"ADD","Network":"a","Addresses":["10.0.0"]}`, "10.0.0", CodeFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParseRequest([]byte(tt.doc))
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != tt.code || !strings.Contains(e.Error(), tt.says) {
				t.Errorf("said %v, want code %d and %q", err, tt.code, tt.says)
			}
		})
	}
}

// FuzzParseRequest: what is accepted is valid, and means the same when it is written and read again.
func FuzzParseRequest(f *testing.F) {
	full, err := json.Marshal(add(func(r *Request) {
		r.Namespace, r.Pod, r.Addresses = "n", "p", []netip.Addr{netip.MustParseAddr("10.0.0.1")}
		r.Prev = &Result{Host: Link{Name: "sly1"}, Gateway4: netip.MustParseAddr("169.254.1.1")}
	}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(`{"Version":1,"Verb":"GC","Network":"a","Attachments":[{"ContainerID":"a","Interface":"b"}]}`))
	f.Add([]byte(`{"Version":1e0,"Verb":"STATUS"}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		r, err := ParseRequest(doc)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok || r != nil {
				t.Fatalf("%v is no *Error, or came with a request", err)
			}
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		second, err := ParseRequest(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if d := cmp.Diff(r, second, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Fatal(d)
		}
	})
}

// listen accepts one connection and hands it to serve.
func listen(t *testing.T, serve func(*net.UnixConn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			serve(c.(*net.UnixConn))
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return path
}

func TestFilesArrive(t *testing.T) {
	t.Parallel()
	sent := add(func(r *Request) { r.Addresses = []netip.Addr{netip.MustParseAddr("fd00::7")} })
	var got *Request
	path := listen(t, func(c *net.UnixConn) {
		r, files, err := Receive(c)
		if err != nil || len(files) != 2 {
			t.Errorf("%d files came, %v", len(files), err)
			return
		}
		defer Close(files)
		got = r
		for i, want := range []string{"first", "second"} {
			b := make([]byte, 10)
			n, _ := files[i].ReadAt(b, 0)
			if string(b[:n]) != want {
				t.Errorf("file %d holds %q, want %q", i, b[:n], want)
			}
			if flags, err := unix.FcntlInt(files[i].Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("a program that is started would inherit file %d: %v", i, err)
			}
		}
		if err := Reply(c, &Answer{Result: &Result{Host: Link{Name: "sly0"}, Addresses: r.Addresses}}); err != nil {
			t.Error(err)
		}
	})
	a, err := Ask(t.Context(), path, sent, file(t, "first"), file(t, "second"))
	if err != nil {
		t.Fatal(err)
	}
	if a.Result == nil || a.Result.Host.Name != "sly0" || len(a.Result.Addresses) != 1 || a.Result.Addresses[0] != sent.Addresses[0] {
		t.Errorf("the answer is %+v", a.Result)
	}
	if d := cmp.Diff(sent, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func file(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// What is wrong with a message must not leave its descriptors open.
func TestWrongMessages(t *testing.T) { //nolint:paralleltest // it counts the descriptors of the process
	frame := func(doc string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(doc))), doc...) }
	status := frame(`{"Version":1,"Verb":"STATUS","Network":"a"}`)
	tests := []struct {
		name   string
		bytes  []byte
		rights int
		says   string // "": it is right
	}{
		{"a request", status, 0, ""},
		{"descriptors that the verb lacks", status, 2, "2 descriptors came with the request, not the 0 of STATUS"},
		{"one descriptor for ADD", frame(`{"Version":1,"Verb":"ADD","Network":"a","ContainerID":"c","Interface":"e"}`), 1, "1 descriptors"},
		{"too many descriptors", status, 3, "more than 2 descriptors"},
		{"many descriptors", status, 200, "more than 2 descriptors"},
		{"nothing", nil, 0, "EOF"},
		{"half a length", status[:2], 1, "EOF"},
		{"half a document", status[:20], 2, "EOF"},
		{"a long document", []byte{0, 0x10, 0, 1}, 2, "longer than"},
		{"an endless document", []byte{0xff, 0xff, 0xff, 0xff}, 0, "longer than"},
	}
	open := file(t, "x")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := descriptors(t)
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			here := connOf(t, pair[0])
			fds := make([]int, tt.rights)
			for i := range fds {
				fds[i] = int(open.Fd())
			}
			if len(tt.bytes) > 0 {
				var oob []byte
				if tt.rights > 0 {
					oob = unix.UnixRights(fds...)
				}
				if err := unix.Sendmsg(pair[1], tt.bytes, oob, nil, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Close(pair[1]); err != nil {
				t.Fatal(err)
			}
			_, files, err := Receive(here)
			switch {
			case tt.says == "" && err != nil:
				t.Errorf("said %v", err)
			case tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("said %v, want %q", err, tt.says)
			}
			Close(files)
			_ = here.Close()
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors are open, %d were before", after, before)
			}
		})
	}
}

func connOf(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "pair")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	_, err := Ask(t.Context(), filepath.Join(t.TempDir(), "none"), add(nil))
	if !errors.Is(err, ErrAway) || errors.Is(err, ErrLost) {
		t.Errorf("said %v", err)
	}
}

func TestTheAgentEndsBeforeItAnswers(t *testing.T) {
	t.Parallel()
	path := listen(t, func(c *net.UnixConn) { _, _, _ = Receive(c) })
	_, err := Ask(t.Context(), path, &Request{Version: Version, Verb: Status, Network: "a"})
	if !errors.Is(err, ErrLost) || errors.Is(err, ErrAway) {
		t.Errorf("said %v", err)
	}
}

// An agent that hangs must not make the plugin hang.
func TestTheContextEndsAQuestion(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	path := listen(t, func(c *net.UnixConn) {
		_, _, _ = Receive(c)
		cancel()
		_, _ = c.Read(make([]byte, 1)) // until the plugin hangs up
	})
	_, err := Ask(ctx, path, &Request{Version: Version, Verb: Status, Network: "a"})
	if !errors.Is(err, ErrLost) || !errors.Is(err, context.Canceled) {
		t.Errorf("said %v", err)
	}
}

func TestARequestThatIsTooLong(t *testing.T) {
	t.Parallel()
	long := &Request{Version: Version, Verb: GC, Network: "a", Attachments: make([]Attachment, MaxDocument/20)}
	if _, err := Ask(t.Context(), "/nowhere", long); err == nil || !strings.Contains(err.Error(), "more than the 1048576") {
		t.Errorf("said %v", err)
	}
}

func TestPatienceEndsBeforeTheKubelets(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{Add, Del, Check, Status, GC} {
		if d := Patience(verb); d <= 0 || d > 2*time.Minute-grace {
			t.Errorf("%s may take %s; a kubelet waits 2 minutes", verb, d)
		}
	}
}
