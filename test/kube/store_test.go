package kube

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// TestStore runs the datastore of an agent of a release, whose version counts, in this process, where one sees what it
// leaves behind.
func TestStore(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{CRDs: true})
	kubectl := func(stdin string, args ...string) {
		t.Helper()
		_, err := c.Kubectl(t, stdin, args...)
		labtest.Must(t, err)
	}
	version := func(is string) {
		t.Helper()
		kubectl("", "annotate", "--overwrite", "crd", "ippools.projectcalico.org", "natconfigurations.sallyport.dev", "sallyport.dev/version="+is)
	}
	version("0.2.0")
	kubectl(pools(true), "apply", "-f", "-")
	kubectl("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n", "apply", "-f", "-")
	const far = "the CustomResourceDefinition of IPPool is of version 0.2.0, and this is sallyport 0.9.0"
	if _, err := kube.Load(t.Context(), c.Config(), "0.9.0", true); err == nil || !strings.Contains(err.Error(), far) {
		t.Errorf("loading says %v", err)
	}
	api, err := kube.Connect(c.Config(), "test")
	labtest.Must(t, err)
	if ours, err := api.Owned(t.Context(), "0.9.0"); ours || err == nil || !strings.Contains(err.Error(), far) {
		t.Errorf("asked whether the definition is ours, the answer is %t, %v", ours, err)
	}

	s, err := kube.Open(kube.Options{Config: c.Config(), Node: "n1", StateDir: t.TempDir(), Version: "0.9.0", Log: slog.New(slog.DiscardHandler)})
	labtest.Must(t, err)
	defer func() { labtest.Must(t, s.Close()) }()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	var last datastore.State
	ended := make(chan error, 1)
	go func() {
		ended <- s.Run(ctx, func(s datastore.State) {
			mu.Lock()
			defer mu.Unlock()
			last = s
		})
	}()
	holds := func(what string, is func(datastore.State) bool) {
		t.Helper()
		awaiting(t, what, func() (bool, string) {
			mu.Lock()
			defer mu.Unlock()
			return is(last), fmt.Sprintf("%+v of %+v", last, last.Snapshot)
		})
	}
	refused := func(s datastore.State) bool { return strings.Contains(fmt.Sprint(s.Faults), far) }
	holds("the definition is refused", func(s datastore.State) bool { return refused(s) && s.Snapshot == nil })
	version("0.8.1")
	holds("the definition is taken", func(s datastore.State) bool {
		return len(s.Faults) == 0 && s.Snapshot != nil && len(s.Snapshot.Pools) == 2
	})
	version("0.2.0")
	kubectl("", "delete", "ippool", "pods-v6")
	holds("what the definition of another version lacks stays", func(s datastore.State) bool { return refused(s) && len(s.Snapshot.Pools) == 2 })
	version("0.9.9")
	holds("it goes", func(s datastore.State) bool { return len(s.Faults) == 0 && len(s.Snapshot.Pools) == 1 })

	c.StopServer(t)
	awaiting(t, "the store knows that the API server is away", func() (bool, string) { return !s.Contact().Lost.IsZero(), "" })
	stop()
	labtest.Must(t, <-ended)
	leaked := regexp.MustCompile(`internal/datastore/kube\.|client-go/tools/cache`)
	awaiting(t, "nothing of it goes on", func() (bool, string) {
		b := make([]byte, 4<<20)
		stacks := string(b[:runtime.Stack(b, true)])
		return !leaked.MatchString(stacks), stacks
	})
}
