package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/internal/cni"
)

func args(conf, cniArgs string) *skel.CmdArgs {
	return &skel.CmdArgs{ContainerID: "c1", IfName: "eth0", Args: cniArgs, StdinData: []byte(conf)}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, conf, args string
		verb             string
		want             string // of the request, as JSON without what all have
		code             uint
		says             string
	}{
		{"the least", `{"name":"n","type":"sallyport-cni","cniVersion":"1.0.0"}`, "", cni.Add, `"ContainerID":"c1","Interface":"eth0"`, 0, ""},
		{"ours", `{"name":"n","socket":"/other.sock","families":["IPv6","IPv4"],"mtu":1400}`, "", cni.Add, `"ContainerID":"c1","Interface":"eth0","Families":["IPv4","IPv6"],"MTU":1400`, 0, ""},
		{"of a kubelet", `{"name":"n"}`, "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u-1;NEW=x", cni.Add,
			`"ContainerID":"c1","Interface":"eth0","Namespace":"ns","Pod":"web-0","UID":"u-1"`, 0, ""},
		{"of podman", `{"name":"n"}`, "IgnoreUnknown=1;K8S_POD_NAME=one", cni.Add, `"ContainerID":"c1","Interface":"eth0"`, 0, ""},
		{"a namespace without a pod", `{"name":"n"}`, "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns", cni.Add, "", cni.CodeEnvironment, "K8S_POD_NAME"},
		{"addresses by capability", `{"name":"n","capabilities":{"ips":true},"runtimeConfig":{"ips":["10.0.0.7/16","fd00::7"]}}`, "", cni.Add,
			`"ContainerID":"c1","Interface":"eth0","Addresses":["10.0.0.7","fd00::7"]`, 0, ""},
		{"an address by argument, and the same by capability", `{"name":"n","runtimeConfig":{"ips":["10.0.0.7"]}}`, "IP=10.0.0.7/24", cni.Add,
			`"ContainerID":"c1","Interface":"eth0","Addresses":["10.0.0.7"]`, 0, ""},
		{"what runtimes add", `{"name":"n","args":{"cni":{}},"prevResult":{},"dns":{},"disableGC":true,"runtimeConfig":{"portMappings":[{"hostPort":1}]},"cni.dev/attachments":[],"example.org/x":1}`,
			"", cni.Check, `"ContainerID":"c1","Interface":"eth0"`, 0, ""},
		{"a misspelt key", `{"name":"n","family":["IPv4"]}`, "", cni.Add, "", cni.CodeConfig, `"family"`},
		{"another plugin's key", `{"name":"n","ipam":{"type":"host-local"}}`, "", cni.Status, "", cni.CodeConfig, `"ipam"`},
		{"a family that is none", `{"name":"n","families":["ipv4"]}`, "", cni.Add, "", cni.CodeConfig, `"ipv4" is neither`},
		{"an MTU that is a text", `{"name":"n","mtu":"1400"}`, "", cni.Add, "", 6, "mtu"},
		{"an address that is none", `{"name":"n","runtimeConfig":{"ips":["10.0.0.0/33"]}}`, "", cni.Add, "", cni.CodeConfig, "10.0.0.0/33"},
		{"unknown arguments", `{"name":"n"}`, "COLOUR=red", cni.Add, "", cni.CodeEnvironment, "COLOUR"},
		{"DEL with a configuration that has become wrong", `{"name":"n","family":[],"mtu":1}`, "COLOUR=red", cni.Del, `"ContainerID":"c1","Interface":"eth0"`, 0, ""},
		{"GC has no container", `{"name":"n","cni.dev/valid-attachments":[]}`, "", cni.GC, ``, 0, ""},
		{"GC by a runtime that knows of none", `{"name":"n","cni.dev/valid-attachments":null}`, "", cni.GC, ``, 0, ""},
		{"GC", `{"name":"n","cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}],"cni.dev/attachments":[]}`, "", cni.GC, `"Attachments":[{"ContainerID":"c2","Interface":"eth0"}]`, 0, ""},
		{"GC of the first libcni with it", `{"name":"n","cni.dev/attachments":[{"containerID":"c2","ifname":"eth0"}]}`, "", cni.GC, `"Attachments":[{"ContainerID":"c2","Interface":"eth0"}]`, 0, ""},
		{"GC without the attachments", `{"name":"n"}`, "", cni.GC, "", cni.CodeConfig, "cni.dev/valid-attachments"},
		{"GC with attachments that are none", `{"name":"n","cni.dev/attachments":{}}`, "", cni.GC, "", 6, "cannot unmarshal object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, r, err := request(tt.verb, args(tt.conf, tt.args))
			if tt.code != 0 {
				if e, ok := errors.AsType[*types.Error](reported(err)); !ok || e.Code != tt.code || !strings.Contains(e.Error(), tt.says) {
					t.Errorf("said %v, want code %d and %q", err, tt.code, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf(`{"Version":1,"Verb":%q,"Network":"n"`, tt.verb)
			if tt.want != "" {
				want += "," + tt.want
			}
			if got, _ := json.Marshal(r); string(got) != want+"}" {
				t.Errorf("got  %s\nwant %s}", got, want)
			}
			if socket := "/other.sock"; (c.Socket == socket) != strings.Contains(tt.conf, socket) {
				t.Errorf("socket %q", c.Socket)
			}
		})
	}
}

func made() *cni.Result {
	return &cni.Result{
		Host: cni.Link{Name: cni.LinkName(cni.NetworkHash("n"), "c1", "eth0"), MAC: "ee:ee:ee:ee:ee:ee", MTU: 1450}, Pod: cni.Link{Name: "eth0", MAC: "02:00:00:00:00:01", MTU: 1450},
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")},
		Gateway4:  netip.MustParseAddr("169.254.1.1"), Gateway6: netip.MustParseAddr("fe80::1"),
	}
}

// The results of each version, as its part of SPEC.md has them.
func TestResults(t *testing.T) {
	t.Parallel()
	host, pod := `{"mac":"ee:ee:ee:ee:ee:ee","mtu":1450,"name":"`+made().Host.Name+`"}`, `{"mac":"02:00:00:00:00:01","mtu":1450,"name":"eth0","sandbox":"/run/netns/x"}`
	host4, pod4 := strings.ReplaceAll(host, `"mtu":1450,`, ""), strings.ReplaceAll(pod, `"mtu":1450,`, "")
	routes := `"routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::1"}]`
	want := map[string]string{
		"1.1.0": `{"cniVersion":"1.1.0","dns":{"nameservers":["10.96.0.10"]},"interfaces":[` + host + `,` + pod + `],"ips":[{"address":"10.0.0.7/32","gateway":"169.254.1.1","interface":1},{"address":"fd00::7/128","gateway":"fe80::1","interface":1}],` + routes + `}`,
		"0.4.0": `{"cniVersion":"0.4.0","dns":{"nameservers":["10.96.0.10"]},"interfaces":[` + host4 + `,` + pod4 + `],"ips":[{"address":"10.0.0.7/32","gateway":"169.254.1.1","interface":1,"version":"4"},{"address":"fd00::7/128","gateway":"fe80::1","interface":1,"version":"6"}],` + routes + `}`,
	}
	want["1.0.0"] = strings.ReplaceAll(want["1.1.0"], `"cniVersion":"1.1.0"`, `"cniVersion":"1.0.0"`)
	want["0.3.1"] = strings.ReplaceAll(want["0.4.0"], `"cniVersion":"0.4.0"`, `"cniVersion":"0.3.1"`)
	for version, want := range want {
		r, err := resultOf(made(), "/run/netns/x", types.DNS{Nameservers: []string{"10.96.0.10"}}).GetAsVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := r.PrintTo(&b); err != nil {
			t.Fatal(err)
		}
		var got, wanted any
		if err := errors.Join(json.Unmarshal(b.Bytes(), &got), json.Unmarshal([]byte(want), &wanted)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(wanted, got); d != "" {
			t.Errorf("version %s: %s", version, d)
		}
	}
}

// CHECK gets what all plugins of the list have made, and passes on what is ours.
func TestPrevious(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		r, err := resultOf(made(), "/run/netns/x", types.DNS{}).GetAsVersion(version)
		if err != nil {
			t.Fatal(err)
		}
		prev, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		full := strings.Replace(string(prev), `"interfaces":[`, `"interfaces":[{"name":"ifb0"},`, 1) // as bandwidth puts its own after
		full = strings.ReplaceAll(full, `"interface":1`, `"interface":2`)
		c, req, err := request(cni.Check, args(fmt.Sprintf(`{"name":"n","cniVersion":%q,"prevResult":%s}`, version, full), ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := previous(c, req)
		if err != nil {
			t.Fatal(err)
		}
		want := made()
		want.Gateway4, want.Gateway6 = netip.Addr{}, netip.Addr{}
		if version == "0.4.0" {
			want.Host.MTU, want.Pod.MTU = 0, 0
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("version %s: %s", version, d)
		}
	}
	for _, prev := range []string{``, `,"prevResult":{"cniVersion":"1.0.0"}`, `,"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}]}`, `,"prevResult":{"cniVersion":"9"}`} {
		c, req, err := request(cni.Check, args(`{"name":"n","cniVersion":"1.0.0"`+prev+`}`, ""))
		if err == nil {
			_, err = previous(c, req)
		}
		if e, ok := errors.AsType[*cni.Error](err); !ok || e.Code != cni.CodeConfig {
			t.Errorf("prevResult %s: said %v", prev, err)
		}
	}
}

// agent is a script: each connection is answered by the next step; nil hangs up without an answer.
type agent struct {
	steps []*cni.Answer
	mu    sync.Mutex
	seen  []string
}

func (a *agent) start(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, step := range a.steps {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			r, files, err := cni.Receive(c)
			if err == nil {
				cni.Close(files)
				a.mu.Lock()
				a.seen = append(a.seen, r.Verb)
				a.mu.Unlock()
			}
			if step != nil {
				_ = cni.Reply(c, step)
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return path
}

// An agent that is killed while it works on an ADD has done anything or nothing: that is undone before the ADD is tried again.
func TestPersist(t *testing.T) {
	t.Parallel()
	done, no := &cni.Answer{}, &cni.Answer{Error: &cni.Error{Code: 51, Message: "no"}}
	yes := &cni.Answer{Result: made()}
	tests := []struct {
		name  string
		steps []*cni.Answer
		seen  string
		fails string
	}{
		{"at once", []*cni.Answer{yes}, "ADD", ""},
		{"a refusal is not tried again", []*cni.Answer{no}, "ADD", "no"},
		{"lost once", []*cni.Answer{nil, done, yes}, "ADD DEL ADD", ""},
		{"lost twice", []*cni.Answer{nil, done, nil, done, yes}, "ADD DEL ADD DEL ADD", ""},
		{"the DEL is lost too", []*cni.Answer{nil, nil, done, yes}, "ADD DEL DEL ADD", ""},
		{"what cannot be undone", []*cni.Answer{nil, no}, "ADD DEL", "no"},
		{"no address", []*cni.Answer{done}, "ADD", "without an address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := &agent{steps: tt.steps}
			path := a.start(t)
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, r, err := request(cni.Add, args(`{"name":"n"}`, ""))
			if err != nil {
				t.Fatal(err)
			}
			got, err := persist(t.Context(), path, r, []*os.File{f, f})
			switch {
			case tt.fails == "" && (err != nil || got.Host != made().Host):
				t.Errorf("got %+v, %v", got, err)
			case tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)):
				t.Errorf("said %v, want %q", err, tt.fails)
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			if seen := strings.Join(a.seen, " "); seen != tt.seen {
				t.Errorf("the agent saw %s, want %s", seen, tt.seen)
			}
		})
	}
}

// Another program's file is no namespace, and the node's own must never become a pod's.
func TestNamespacesThatCannotBe(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{"/nowhere": "no such file", plain: "no network namespace", "/proc/self/ns/uts": "no network namespace", "/proc/thread-self/ns/net": "the node's own"} {
		_, err := reach(path, nil)
		if e, ok := errors.AsType[*cni.Error](err); !ok || e.Code != cni.CodeNamespace || !strings.Contains(e.Error(), says) {
			t.Errorf("%s: said %v", path, err)
		}
	}
}

func TestDeletion(t *testing.T) {
	t.Parallel()
	b := deletion("sly0123456789ab")
	if len(b) != 16+16+4+16 || !bytes.HasSuffix(b, []byte("sly0123456789ab\x00")) {
		t.Errorf("the message is %q", b)
	}
	for _, answer := range [][]byte{nil, make([]byte, 20), slices.Repeat([]byte{0xff}, 20)} {
		if outcome(answer) == nil {
			t.Errorf("%x was taken for success", answer)
		}
	}
}
