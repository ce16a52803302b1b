package cli

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// flowsAgent answers on a socket what an agent might, and remembers what it was asked for.
func flowsAgent(t *testing.T, answer string) (socket string, asked *url.Values) {
	t.Helper()
	asked = &url.Values{}
	return listening(t, func(w http.ResponseWriter, r *http.Request) {
		*asked = r.URL.Query()
		_, _ = io.WriteString(w, answer)
	}), asked
}

const someFlows = `{"source":"10.244.1.10:51820","destination":"198.51.100.7:443","seenAs":"192.0.2.10:40312","pool":"private","protocol":"tcp","state":"established","ageSeconds":125,"expiresSeconds":7}
{"source":"[fd00::2]:77","destination":"[2001:db8::7]:0","service":"[fd00:96::1]:0","seenAs":"[2001:db8::1]:9","pool":"p6","protocol":"icmpv6","state":"answered","expiresSeconds":7,"older":true}
`

func TestFlows(t *testing.T) {
	t.Parallel()
	socket, asked := flowsAgent(t, someFlows)
	out, errs, code := sallyport(t, t.TempDir(), "", "flows", "--socket", socket)
	want(t, "flows", out, `POD                DESTINATION               SEEN AS           POOL     PROTOCOL  STATE             AGE
10.244.1.10:51820  198.51.100.7:443          192.0.2.10:40312  private  tcp       established       2m5s
[fd00::2]:77       2001:db8::7 (fd00:96::1)  [2001:db8::1]:9   p6       icmpv6    answered (older)  -
`)
	if code != 0 || errs != "" || asked.Get("limit") != "1000" {
		t.Errorf("exit code %d, %q; asked for %v", code, errs, asked)
	}
	out, errs, code = sallyport(t, t.TempDir(), "", "flows", "--socket", socket, "-o", "json", "--limit", "0", "--pool", "private", "--seen-as", "192.0.2.10:40312", "--proto", "6")
	want(t, "flows -o json", out, someFlows)
	if code != 0 || errs != "" || asked.Get("pool") != "private" || asked.Get("seenAs") != "192.0.2.10:40312" || asked.Get("protocol") != "tcp" {
		t.Errorf("exit code %d, %q; asked for %v", code, errs, asked)
	}
}

func TestFlowsThatAreNotAll(t *testing.T) {
	t.Parallel()
	socket, _ := flowsAgent(t, someFlows+`{"error":"as many as asked for","more":true}`)
	out, errs, code := sallyport(t, t.TempDir(), "", "flows", "--socket", socket, "--limit", "2", "-o", "json")
	if code != 0 || out != someFlows || !strings.Contains(errs, "only 2 are listed, and there are more: choose fewer, or use --limit 0") {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	socket, _ = flowsAgent(t, someFlows+`{"error":"operation not permitted"}`)
	_, errs, code = sallyport(t, t.TempDir(), "", "flows", "--socket", socket)
	if code != 1 || !strings.Contains(errs, "the agent could not list all flows: operation not permitted") {
		t.Errorf("exit code %d, %q", code, errs)
	}
	socket, _ = flowsAgent(t, someFlows[:len(someFlows)-9])
	if _, errs, code = sallyport(t, t.TempDir(), "", "flows", "--socket", socket); code != 1 || !strings.Contains(errs, "reading the agent's answer") {
		t.Errorf("an answer that breaks off: exit code %d, %q", code, errs)
	}
}

// TestAnswersWithoutEnd has what listens on the socket answer for ever, on one line and on many.
func TestAnswersWithoutEnd(t *testing.T) {
	t.Parallel()
	dir := manifests(t, pools)
	endless := func(text string) string {
		return listening(t, func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, text); err != nil {
					return
				}
			}
		})
	}
	line := endless(strings.Repeat(" ", 4096))
	for args, most := range map[string]string{"flows": "65536", "explain 10.244.0.1 198.51.100.1": "1048576", "apply -f - --wait 20s": "1048576"} {
		out, errs, _ := sallyport(t, dir, pools, append(strings.Fields(args), "--socket", line)...)
		if !strings.Contains(out+errs, "of more than "+most+" bytes") {
			t.Errorf("%s: %q, %q", args, out, errs)
		}
	}
	flow, _, _ := strings.Cut(someFlows, "\n")
	out, errs, code := sallyport(t, dir, "", "flows", "--limit", "2500", "--socket", endless(flow+"\n"))
	if code != 0 || strings.Count(out, "10.244.1.10") != 2500 || !strings.Contains(errs, "only 2500 are listed") {
		t.Errorf("exit code %d, %d lines, %q", code, strings.Count(out, "\n"), errs)
	}
}

func TestWatchingFlowsEndsWhenInterrupted(t *testing.T) {
	t.Parallel()
	socket, _ := flowsAgent(t, someFlows)
	ctx, cancel := context.WithCancel(t.Context())
	root := Root()
	root.SetArgs([]string{"flows", "--watch", "--socket", socket, "-o", "json"})
	var seen strings.Builder
	root.SetOut(writerFunc(func(b []byte) (int, error) {
		defer cancel() // after what is printed first
		return seen.Write(b)
	}))
	if code := execute(ctx, root); code != 0 || seen.Len() == 0 {
		t.Errorf("exit code %d, %q", code, seen.String())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
