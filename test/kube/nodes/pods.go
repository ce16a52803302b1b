package nodes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/sallyport/sallyport/internal/lab"
	"github.com/sallyport/sallyport/internal/lab/labtest"
)

// podNamespace is the namespace of the pods that this package makes.
const podNamespace = "default"

// netexecPort is where "agnhost netexec" answers HTTP.
const netexecPort = 8080

// Agnhost is a pod that runs agnhost with arguments, on a node or, where that is nil, on any. With the argument netexec it
// answers HTTP, at /clientip with the address that it sees.
func Agnhost(name string, n *Node, args ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: podNamespace, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To(int64(0)),
			Containers: []corev1.Container{{
				Name: "agnhost", Image: AgnhostImage, ImagePullPolicy: corev1.PullNever, Args: args,
			}},
		},
	}
	if n != nil {
		pod.Spec.NodeName = n.Name
	}
	if args[0] == "netexec" {
		pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
			PeriodSeconds: 1,
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(netexecPort)}},
		}
	}
	return pod
}

// Create creates pods.
func (c *Cluster) Create(t labtest.TB, pods ...*corev1.Pod) {
	t.Helper()
	for _, pod := range pods {
		_, err := c.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		labtest.Must(t, err)
	}
}

// AwaitPod waits until a pod is ready.
func (c *Cluster) AwaitPod(t labtest.TB, name string) *corev1.Pod {
	t.Helper()
	return c.AwaitPodIn(t, podNamespace, name)
}

// AwaitPodIn waits until a pod of a namespace is ready.
func (c *Cluster) AwaitPodIn(t labtest.TB, namespace, name string) *corev1.Pod {
	t.Helper()
	return c.awaitPod(t, namespace, name, func(*corev1.Pod) bool { return true })
}

// AwaitPodSince waits until a pod's containers run, ready, that were started after those that the pod had.
func (c *Cluster) AwaitPodSince(t labtest.TB, before *corev1.Pod) *corev1.Pod {
	t.Helper()
	return c.awaitPod(t, before.Namespace, before.Name, func(pod *corev1.Pod) bool {
		return pod.Status.ContainerStatuses[0].ContainerID != before.Status.ContainerStatuses[0].ContainerID
	})
}

func (c *Cluster) awaitPod(t labtest.TB, namespace, name string, as func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startAtMost)
	defer cancel()
	var last *corev1.Pod
	for {
		pod, err := c.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && podReady(pod) && as(pod) {
			return pod
		}
		if err == nil {
			last = pod
		}
		select {
		case <-ctx.Done():
			events, _ := c.Kubectl(t, "", "-n", namespace, "events", "--for=pod/"+name)
			t.Fatalf("pod %s is not ready after %s (%v): %+v\n%s", name, startAtMost, err, last, events)
		case <-time.After(5 * pollInterval):
		}
	}
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// AwaitDeployment waits until all pods of a deployment are ready.
func (c *Cluster) AwaitDeployment(t labtest.TB, namespace, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startAtMost)
	defer cancel()
	for {
		d, err := c.Client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && d.Status.ObservedGeneration == d.Generation && d.Status.ReadyReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas {
			return
		}
		select {
		case <-ctx.Done():
			pods, _ := c.Kubectl(t, "", "-n", namespace, "get", "pods", "-o", "wide")
			events, _ := c.Kubectl(t, "", "-n", namespace, "events", "--types=Warning")
			t.Fatalf("deployment %s is not ready after %s (%v): %+v\n%s%s", name, startAtMost, err, d, pods, events)
		case <-time.After(5 * pollInterval):
		}
	}
}

// Addresses are those of a pod.
func Addresses(pod *corev1.Pod) []netip.Addr {
	var addrs []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		addrs = append(addrs, netip.MustParseAddr(ip.IP))
	}
	return addrs
}

// Enter is the network of a pod that is ready, as a host that is closed when the test ends.
func (c *Cluster) Enter(t labtest.TB, pod *corev1.Pod) *lab.Host {
	t.Helper()
	_, container, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	return c.enterContainer(t, pod, container)
}

// enterContainer is the network of a container of a pod, by the container's id.
func (c *Cluster) enterContainer(t labtest.TB, pod *corev1.Pod, container string) *lab.Host {
	t.Helper()
	found := c.containerFiles(t, pod, container)
	if len(found) != 1 {
		t.Fatalf("the container %s of pod %s has the cgroups %v", container, pod.Name, found)
	}
	pids, err := os.ReadFile(found[0])
	labtest.Must(t, err)
	pid, _, ok := strings.Cut(string(pids), "\n")
	if !ok {
		t.Fatalf("no process is in the container %s of pod %s", container, pod.Name)
	}
	ns, err := os.Open(filepath.Join("/proc", pid, "ns/net")) //nolint:gosec // the kernel names the process
	labtest.Must(t, err)
	defer ns.Close()
	host, err := lab.Open(pod.Name, ns)
	labtest.Must(t, err)
	t.Cleanup(func() { labtest.Must(t, host.Close()) })
	return host
}

// containerFiles are the files that list the processes of a container: one, while there is such a container.
func (c *Cluster) containerFiles(t labtest.TB, pod *corev1.Pod, container string) (found []string) {
	t.Helper()
	uid := cmp.Or(pod.Annotations["kubernetes.io/config.mirror"], string(pod.UID)) // a static pod has another one on its node
	for _, class := range []string{"", "burstable", "besteffort"} {
		for _, h := range c.cgroups.hierarchies[:1] {
			files, err := filepath.Glob(filepath.Join(h.dir, cgroupFolder, c.cgroups.run, pod.Spec.NodeName, "kubepods", class, "pod"+uid, container, "cgroup.procs"))
			labtest.Must(t, err)
			found = append(found, files...)
		}
	}
	return found
}

// connected says whether a container has a process in a network that is not its node's, as it does not from the first moment.
func (c *Cluster) connected(t labtest.TB, pod *corev1.Pod, container string) bool {
	t.Helper()
	for _, file := range c.containerFiles(t, pod, container) {
		pids, _ := os.ReadFile(file) // it may have gone meanwhile
		pid, _, ok := strings.Cut(string(pids), "\n")
		if !ok {
			continue
		}
		network, err := os.Readlink(filepath.Join("/proc", pid, "ns/net"))
		host, failed := os.Readlink(c.node(pod.Spec.NodeName).proc("ns/net"))
		labtest.Must(t, failed)
		return err == nil && network != host
	}
	return false
}

// askAtMost is how long a server may take to answer.
const askAtMost = 5 * time.Second

// Ask asks a server of agnhost, on port 8080 of an address, from a host or a pod that was entered. It returns the address
// that the server sees.
func Ask(ctx context.Context, from *lab.Host, server netip.Addr) (netip.Addr, error) {
	return AskPort(ctx, from, netip.AddrPortFrom(server, netexecPort))
}

// AskPort is Ask for a server that is behind another port.
func AskPort(ctx context.Context, from *lab.Host, server netip.AddrPort) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, askAtMost)
	defer cancel()
	failed := func(err error) (netip.Addr, error) {
		return netip.Addr{}, fmt.Errorf("%s asks %s: %w", from.Name(), server, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/clientip", server), nil)
	if err != nil {
		return failed(err)
	}
	resp, err := from.HTTPClient().Do(req)
	if err != nil {
		return failed(err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return failed(err)
	}
	seen, err := netip.ParseAddrPort(string(body))
	if err != nil {
		return failed(fmt.Errorf("it answers %q: %w", body, err))
	}
	return seen.Addr().Unmap(), nil
}
