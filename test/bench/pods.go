package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/lab"
)

// podNetwork is one way to give pods their addresses and links.
type podNetwork struct {
	name    string
	plugin  string // path of the program
	path    string // where it finds others
	config  string
	network *network
}

// parallel is how many pods a node starts at a time, where many are to be started.
const parallel = 8

// measurePods adds and deletes pods by Sallyport's plugin and by the reference plugins, in turn.
func measurePods(ctx context.Context, o options, tmp string) (_ []result, err error) {
	dir, state, err := manifests(tmp, 1)
	if err != nil {
		return nil, err
	}
	pool := "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.9.0.0/16, natOutgoing: true}\n"
	if err := os.WriteFile(filepath.Join(dir, "pods.yaml"), []byte(pool), 0o644); err != nil {
		return nil, err
	}
	n, err := newNetwork(true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	socket := filepath.Join(state, "cni.sock")
	a, err := runAgent(ctx, o, n, state, "--dir", dir, "--node-name", "node", "--metrics-address", "", "--network", "--cni-socket", socket)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := a.ready(ctx); err != nil {
		return nil, err
	}
	ours := &podNetwork{name: "sallyport", plugin: o.plugin, path: filepath.Dir(o.plugin), network: n,
		config: fmt.Sprintf(`{"cniVersion":"1.0.0","name":"ours","type":"sallyport-cni","socket":%q}`, socket)}
	theirs := &podNetwork{name: "ptp + host-local", plugin: filepath.Join(o.reference, "ptp"), path: o.reference, network: n,
		config: fmt.Sprintf(`{"cniVersion":"1.0.0","name":"theirs","type":"ptp","ipam":{"type":"host-local","ranges":[[{"subnet":"10.8.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}],"dataDir":%q}}`,
			filepath.Join(tmp, "host-local"))}
	out, err := inTurn(ctx, o, ours, theirs)
	if err != nil {
		return out, err
	}
	started, err := many(ctx, o, ours, theirs)
	out = append(out, started...)
	if err != nil {
		return out, err
	}
	crowd, err := crowdOf(o.podsOfNode)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, closeAll(crowd)) }()
	if _, err := ours.all(ctx, "ADD", crowd); err != nil {
		return out, err
	}
	time.Sleep(o.settle)
	rss, err := a.resident()
	if err != nil {
		return out, err
	}
	out = append(out, summary(fmt.Sprintf("agent with %d pods, resident", o.podsOfNode), "MiB", []float64{rss}))
	_, err = ours.all(ctx, "DEL", crowd)
	return out, err
}

// inTurn adds and deletes one pod after the other.
func inTurn(ctx context.Context, o options, ours, theirs *podNetwork) (_ []result, err error) {
	pods, err := crowdOf(2 * o.pairs)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll(pods)) }()
	took := map[string]map[*podNetwork][]time.Duration{"ADD": {}, "DEL": {}}
	for _, verb := range []string{"ADD", "DEL"} {
		for i := range o.pairs {
			pair := []*podNetwork{ours, theirs}
			if i%2 == 1 {
				pair[0], pair[1] = pair[1], pair[0]
			}
			for _, p := range pair {
				pod := pods[2*i]
				if p == theirs {
					pod = pods[2*i+1]
				}
				t, err := p.do(ctx, verb, pod)
				if err != nil {
					return nil, err
				}
				took[verb][p] = append(took[verb][p], t)
			}
		}
	}
	var out []result
	for _, verb := range []string{"ADD", "DEL"} {
		out = append(out, milliseconds(verb+" of a pod: "+ours.name, took[verb][ours]),
			milliseconds(verb+" of a pod: "+theirs.name, took[verb][theirs]).against(took[verb][ours], took[verb][theirs]))
	}
	return out, nil
}

// many starts many pods on a node, some at a time.
func many(ctx context.Context, o options, ours, theirs *podNetwork) (_ []result, err error) {
	took := map[*podNetwork][]time.Duration{}
	for round := range o.rounds {
		pair := []*podNetwork{ours, theirs}
		if round%2 == 1 {
			pair[0], pair[1] = pair[1], pair[0]
		}
		for _, p := range pair {
			pods, err := crowdOf(o.podsOfNode)
			if err != nil {
				return nil, err
			}
			t, err := p.all(ctx, "ADD", pods)
			if err == nil {
				_, err = p.all(ctx, "DEL", pods)
			}
			if err := errors.Join(err, closeAll(pods)); err != nil {
				return nil, err
			}
			took[p] = append(took[p], t)
		}
	}
	what := fmt.Sprintf("%d pods on a node, %d at a time, first ADD to last: ", o.podsOfNode, parallel)
	return []result{milliseconds(what+ours.name, took[ours]), milliseconds(what+theirs.name, took[theirs]).against(took[ours], took[theirs])}, nil
}

// all does the same for many pods, some at a time.
func (p *podNetwork) all(ctx context.Context, verb string, pods []*lab.Host) (time.Duration, error) {
	next := make(chan *lab.Host, len(pods))
	for _, pod := range pods {
		next <- pod
	}
	close(next)
	var wg sync.WaitGroup
	failed := make(chan error, len(pods))
	began := time.Now()
	for range parallel {
		wg.Go(func() {
			for pod := range next {
				if _, err := p.do(ctx, verb, pod); err != nil {
					failed <- err
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	close(failed)
	return took, <-failed
}

// do runs the plugin, as a container runtime does.
func (p *podNetwork) do(ctx context.Context, verb string, pod *lab.Host) (time.Duration, error) {
	cmd := p.network.node.Command(ctx, p.plugin)
	cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + pod.Name(), "CNI_IFNAME=eth0", "CNI_PATH=" + p.path,
		fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), pod.FD())}
	cmd.Stdin = bytes.NewReader([]byte(p.config))
	var out bytes.Buffer
	cmd.Stdout = &out
	began := time.Now()
	if err := p.network.node.Start(cmd); err != nil {
		return 0, err
	}
	err := cmd.Wait()
	took := time.Since(began)
	if err != nil {
		return took, fmt.Errorf("%s of %s by %s: %w: %s", verb, pod.Name(), p.name, err, out.Bytes())
	}
	if verb == "ADD" && !json.Valid(out.Bytes()) {
		return took, fmt.Errorf("%s of %s by %s: answers %q", verb, pod.Name(), p.name, out.Bytes())
	}
	return took, nil
}

// crowdOf makes the namespaces of pods.
func crowdOf(n int) ([]*lab.Host, error) {
	var out []*lab.Host
	for i := range n {
		h, err := lab.NewHost(fmt.Sprintf("pod%04d", i))
		if err != nil {
			return nil, errors.Join(err, closeAll(out))
		}
		out = append(out, h)
	}
	return out, nil
}

func closeAll(hosts []*lab.Host) error {
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}
