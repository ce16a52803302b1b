package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/test/chart"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// containerEnv holds a containerSpec, for a process that is to become that container.
const containerEnv = "SALLYPORT_KUBE_CONTAINER"

// kubelets play scheduler and kubelet of a site's nodes for the pods of the chart: they run the real program as the
// pods say, with their arguments, environment, users, capabilities, directories and tokens, in the nodes' networks; ask
// their probes; and report it all. What they do not do: pull images, limit memory, and set seccomp profiles. Their
// steps are for the goroutine of the test.
type kubelets struct {
	site    *site
	client  kubernetes.Interface
	pods    map[types.UID]*runningPod
	volumes string    // the directory of the nodes' directories
	beat    time.Time // of the nodes, last
}

// runningPod is a pod that was bound to a node.
type runningPod struct {
	node    *node
	token   string // directory
	inits   int    // init containers that have ended well
	cmd     *exec.Cmd
	ended   chan error
	probed  bool // it says itself whether it is ready
	started bool // the startup probe has succeeded
	ready   bool
}

func newKubelets(s *site) *kubelets {
	s.t.Helper()
	client, err := kubernetes.NewForConfig(s.c.Config())
	labtest.Must(s.t, err)
	k := &kubelets{site: s, client: client, pods: map[types.UID]*runningPod{}, volumes: s.t.TempDir()}
	s.t.Cleanup(func() {
		for _, p := range k.pods {
			k.stop(p)
		}
	})
	return k
}

// step does what is to be done now.
func (k *kubelets) step(ctx context.Context) {
	t := k.site.t
	t.Helper()
	if time.Since(k.beat) > 5*time.Second {
		k.beat = time.Now()
		for _, n := range k.site.nodes {
			_, err := k.client.CoreV1().Nodes().Patch(ctx, n.name, types.StrategicMergePatchType,
				fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Test","lastHeartbeatTime":%q}]}}`, k.beat.UTC().Format(time.RFC3339)), metav1.PatchOptions{}, "status")
			labtest.Must(t, err)
		}
	}
	pods, err := k.client.CoreV1().Pods(chart.Namespace).List(ctx, metav1.ListOptions{})
	labtest.Must(t, err)
	there := map[types.UID]bool{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		there[pod.UID] = true
		running := k.pods[pod.UID]
		switch {
		case pod.DeletionTimestamp != nil:
			if running != nil {
				k.stop(running)
				delete(k.pods, pod.UID)
			}
			err := k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
			if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
				labtest.Must(t, err)
			}
		case pod.Spec.NodeName == "":
			k.bind(ctx, pod, pods.Items)
		default:
			k.advance(ctx, pod)
		}
	}
	for uid, p := range k.pods {
		if !there[uid] {
			k.stop(p)
			delete(k.pods, uid)
		}
	}
}

// bind gives a pod the node that it wants, or the first on which there is none of its kind.
func (k *kubelets) bind(ctx context.Context, pod *corev1.Pod, all []corev1.Pod) {
	name := ""
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, f := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[0].MatchFields {
			name = f.Values[0]
		}
	}
	for _, n := range k.site.nodes {
		taken := slices.ContainsFunc(all, func(o corev1.Pod) bool {
			return o.Spec.NodeName == n.name && o.Labels["app.kubernetes.io/component"] == pod.Labels["app.kubernetes.io/component"]
		})
		if name == "" && !taken {
			name = n.name
		}
	}
	if name == "" {
		return
	}
	err := k.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
		Target: corev1.ObjectReference{Kind: "Node", Name: name}}, metav1.CreateOptions{})
	labtest.Must(k.site.t, err)
	pod.Spec.NodeName = name
	for i := range all {
		if all[i].UID == pod.UID {
			all[i].Spec.NodeName = name
		}
	}
}

// advance runs what of a pod is to run, and reports how it stands.
func (k *kubelets) advance(ctx context.Context, pod *corev1.Pod) {
	t := k.site.t
	p := k.pods[pod.UID]
	if p == nil {
		p = &runningPod{node: k.site.nodes[slices.IndexFunc(k.site.nodes, func(n *node) bool { return n.name == pod.Spec.NodeName })]}
		if ptr.Deref(pod.Spec.AutomountServiceAccountToken, true) {
			p.token = k.tokenOf(pod)
		}
		k.pods[pod.UID] = p
	}
	if p.cmd != nil {
		select {
		case err := <-p.ended:
			p.cmd = nil
			if p.inits < len(pod.Spec.InitContainers) && err == nil {
				p.inits++
			} else {
				t.Errorf("a container of pod %s ended: %v", pod.Name, err)
			}
		default:
		}
	}
	main := p.inits == len(pod.Spec.InitContainers)
	c := &pod.Spec.Containers[0]
	if !main {
		c = &pod.Spec.InitContainers[p.inits]
	}
	if p.cmd == nil {
		p.start(k, pod, c)
	}
	ready := main && k.probe(p, c)
	if ready == p.ready && pod.Status.Phase == corev1.PodRunning {
		return
	}
	p.ready = ready
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	now := metav1.Now()
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &now, Conditions: []corev1.PodCondition{
		{Type: corev1.PodReady, Status: status, LastTransitionTime: now}, {Type: corev1.ContainersReady, Status: status, LastTransitionTime: now},
		{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: now}, {Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now},
	}}
	_, err := k.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		labtest.Must(t, err)
	}
}

// tokenOf makes the directory that a pod finds its token in.
func (k *kubelets) tokenOf(pod *corev1.Pod) string {
	t := k.site.t
	config, err := clientcmd.LoadFromFile(k.site.c.TokenKubeconfig(t, cluster.PodIdentity{
		Namespace: pod.Namespace, ServiceAccount: pod.Spec.ServiceAccountName, Pod: pod.Name, Node: pod.Spec.NodeName}))
	labtest.Must(t, err)
	dir := t.TempDir()
	labtest.Must(t, os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755),
		os.WriteFile(dir+"/token", []byte(config.AuthInfos["user"].Token), 0o644),
		os.WriteFile(dir+"/ca.crt", config.Clusters["test"].CertificateAuthorityData, 0o644),
		os.WriteFile(dir+"/namespace", []byte(pod.Namespace), 0o644))
	return dir
}

// probe says whether a container that runs is ready, by the probes that it declares.
func (k *kubelets) probe(p *runningPod, c *corev1.Container) bool {
	ask := func(probe *corev1.Probe) bool {
		if probe == nil {
			return true
		}
		host := probe.HTTPGet.Host
		if host == "" {
			host = p.node.own[0].String()
		}
		port := probe.HTTPGet.Port.IntValue()
		for _, declared := range c.Ports {
			if declared.Name == probe.HTTPGet.Port.StrVal {
				port = int(declared.ContainerPort)
			}
		}
		client := p.node.host.HTTPClient()
		client.Timeout = time.Duration(probe.TimeoutSeconds) * time.Second
		resp, err := client.Get("http://" + net.JoinHostPort(host, strconv.Itoa(port)) + probe.HTTPGet.Path)
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}
	p.started = p.started || ask(c.StartupProbe)
	if p.started && !ask(c.LivenessProbe) {
		k.site.t.Errorf("%s is not alive", c.Name)
	}
	return p.started && ask(c.ReadinessProbe)
}

// stop has a pod's container end.
func (k *kubelets) stop(p *runningPod) {
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		k.site.t.Error(err)
	}
	select {
	case err := <-p.ended:
		if err != nil && p.probed { // one that is not asked may not have come to minding signals yet
			k.site.t.Errorf("a container on %s ended after SIGTERM with: %v", p.node.name, err)
		}
	case <-time.After(patience):
		k.site.t.Errorf("a container on %s does not end", p.node.name)
	}
	p.cmd = nil
}

// containerSpec is what a process needs to know to become a container.
type containerSpec struct {
	Root         string // an empty directory
	Args, Env    []string
	User, Group  int
	Capabilities []int
	Mounts       []containerMount
}

type containerMount struct {
	From, To string
	ReadOnly bool
}

// spec is how a container is to be run, which must be confined as the chart says that all are.
func (k *kubelets) spec(p *runningPod, pod *corev1.Pod, c *corev1.Container) *containerSpec {
	t := k.site.t
	s := c.SecurityContext
	if !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(c.Command) > 0 || !pod.Spec.HostNetwork {
		t.Fatalf("container %s of pod %s asks for what is not played: %+v", c.Name, pod.Name, c)
	}
	if !strings.HasPrefix(c.Image, "registry.example.org/sallyport:") {
		t.Errorf("container %s of pod %s has the image %s", c.Name, pod.Name, c.Image)
	}
	out := &containerSpec{Root: t.TempDir()}
	user, group := s.RunAsUser, s.RunAsGroup
	if user == nil {
		user, group = pod.Spec.SecurityContext.RunAsUser, pod.Spec.SecurityContext.RunAsGroup
	}
	out.User, out.Group = int(*user), int(*group)
	for _, name := range s.Capabilities.Add {
		if name != "NET_ADMIN" {
			t.Fatalf("container %s has the capability %s", c.Name, name)
		}
		out.Capabilities = append(out.Capabilities, unix.CAP_NET_ADMIN)
	}
	// What stands in for kube-proxy: the address of the API server in place of its service's.
	out.Env = []string{"KUBERNETES_SERVICE_HOST=192.168.255.1", "KUBERNETES_SERVICE_PORT=6443", programEnv + "=1"}
	var pairs []string
	for _, e := range c.Env {
		value := e.Value
		if from := e.ValueFrom; from != nil && from.FieldRef != nil {
			value = map[string]string{"spec.nodeName": pod.Spec.NodeName, "metadata.namespace": pod.Namespace}[from.FieldRef.FieldPath]
		} else if from != nil {
			value = strconv.FormatInt(c.Resources.Limits.Memory().Value(), 10)
		}
		out.Env = append(out.Env, e.Name+"="+value)
		pairs = append(pairs, "$("+e.Name+")", value)
	}
	for _, a := range c.Args {
		out.Args = append(out.Args, strings.NewReplacer(pairs...).Replace(a))
	}
	for _, m := range c.VolumeMounts {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		volume := pod.Spec.Volumes[i]
		if volume.Projected != nil { // the token, which the API server's admission has added
			out.Mounts = append(out.Mounts, containerMount{p.token, m.MountPath, true})
			continue
		}
		from := filepath.Join(k.volumes, p.node.name, volume.HostPath.Path)
		labtest.Must(t, os.MkdirAll(from, 0o755)) // DirectoryOrCreate
		out.Mounts = append(out.Mounts, containerMount{from, m.MountPath, m.ReadOnly})
	}
	return out
}

// command is a container on the pod's node.
func (k *kubelets) command(ctx context.Context, p *runningPod, spec *containerSpec) *exec.Cmd {
	t := k.site.t
	data, err := json.Marshal(spec)
	labtest.Must(t, err)
	cmd := p.node.host.Command(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), containerEnv+"="+string(data))
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS
	return cmd
}

// start runs a container.
func (p *runningPod) start(k *kubelets, pod *corev1.Pod, c *corev1.Container) {
	cmd := k.command(context.Background(), p, k.spec(p, pod, c))
	cmd.Stdout, cmd.Stderr = p.node.log, p.node.log
	labtest.Must(k.site.t, p.node.host.Start(cmd))
	p.cmd, p.ended, p.started, p.probed = cmd, make(chan error, 1), false, c.ReadinessProbe != nil
	ended := p.ended
	go func() { ended <- cmd.Wait() }()
}

// exec does what "kubectl exec" does in a pod of a workload's component, and returns what is printed.
func (k *kubelets) exec(component string, args ...string) string {
	t := k.site.t
	t.Helper()
	pods, err := k.client.CoreV1().Pods(chart.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + component})
	labtest.Must(t, err)
	for i := range pods.Items {
		pod := &pods.Items[i]
		if p := k.pods[pod.UID]; p != nil && p.ready {
			spec := k.spec(p, pod, &pod.Spec.Containers[0])
			spec.Args = args
			cmd := k.command(t.Context(), p, spec)
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			labtest.Must(t, p.node.host.Start(cmd))
			if err := cmd.Wait(); err != nil {
				t.Errorf("in a pod, %q ends with %v: %s", args, err, out.String())
			}
			return out.String()
		}
	}
	t.Fatalf("no pod of %s is ready", component)
	return ""
}

// becomeContainer makes this process, which has a mount namespace of its own, a container: its root holds the program,
// the libraries that a test binary needs, and what is mounted; read-only but for volumes. It returns only to fail.
func becomeContainer(text string) error {
	runtime.LockOSThread()
	var s containerSpec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := unix.Mount("root", s.Root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	program := filepath.Join(s.Root, "sallyport")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(self, program, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting the program: %w", err)
	}
	mounts := s.Mounts
	for _, dir := range []string{"/proc", "/dev", "/lib", "/lib64", "/usr/lib"} {
		if _, err := os.Stat(dir); err == nil {
			mounts = append(mounts, containerMount{dir, dir, false})
		}
	}
	for _, m := range mounts {
		to := filepath.Join(s.Root, m.To)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.From, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m.From, err)
		}
		if m.ReadOnly {
			if err := unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
				return fmt.Errorf("making %s read-only: %w", m.To, err)
			}
		}
	}
	if err := unix.Mount("", s.Root, "", unix.MS_REMOUNT|unix.MS_RDONLY, "mode=755"); err != nil {
		return fmt.Errorf("making the root read-only: %w", err)
	}
	if err := errors.Join(unix.Chroot(s.Root), os.Chdir("/")); err != nil {
		return err
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if slices.Contains(s.Capabilities, c) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: an older kernel
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	if err := errors.Join(unix.Setgroups(nil), unix.Setgid(s.Group), unix.Setuid(s.User), unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); err != nil {
		return err
	}
	return unix.Exec("/sallyport", append([]string{"/sallyport"}, s.Args...), s.Env)
}
