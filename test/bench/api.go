package main

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore/kube"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// creators is how many objects are created at once.
const creators = 32

// newClient lets a measurement change what the API has.
func newClient(cfg *rest.Config) (dynamic.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1 // as fast as the server can
	return dynamic.NewForConfig(cfg)
}

// populated starts a control plane whose API has that many Nodes and pools; the first pool is the pod's.
func populated(s *scope, nodes, pools int) (*cluster.Cluster, dynamic.Interface, error) {
	c := cluster.New(s, cluster.Options{CRDs: true})
	api, err := newClient(c.Config())
	if err != nil {
		return nil, nil, err
	}
	err = createAll(s.ctx, api.Resource(kube.Nodes), nodes, func(i int) any { return node(i) })
	if err == nil {
		err = createAll(s.ctx, api.Resource(kube.IPPools), pools, func(i int) any { return pool(i) })
	}
	return c, api, err
}

func createAll(ctx context.Context, in dynamic.ResourceInterface, n int, make func(i int) any) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(creators)
	for i := range n {
		g.Go(func() error { return create(ctx, in, make(i)) })
	}
	return g.Wait()
}

// create creates an object of the API, which says its kind.
func create(ctx context.Context, in dynamic.ResourceInterface, object any) error {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return err
	}
	o := &unstructured.Unstructured{Object: m}
	if _, err := in.Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("creating %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

func poolName(i int) string { return fmt.Sprintf("pool-%05d", i) }

// node is a Node as large as they are where pods run: most of it are the images that it has.
func node(i int) *corev1.Node {
	const images = 30
	name := nodeName(i)
	n := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
		"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
		"node.kubernetes.io/instance-type": "large", "topology.kubernetes.io/zone": fmt.Sprintf("zone-%d", i%3),
	}}}
	n.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.%d.%d", i>>8, i&255)},
		{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("2001:db8:f0::%x", i+1)},
		{Type: corev1.NodeHostName, Address: name},
	}
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: "KubeletSaysSo", Message: "kubelet says so"})
	}
	for j := range images {
		image := fmt.Sprintf("registry.example.com/some/team/image-%d", j)
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{SizeBytes: 1 << 26, Names: []string{image + "@sha256:" + strings.Repeat("0a", 32), image + ":v1.2.3"}})
	}
	return n
}

func pool(i int) *apiv3.IPPool {
	cidr := nth(i)
	if i == 0 {
		cidr = podRange
	}
	p := &apiv3.IPPool{TypeMeta: metav1.TypeMeta{APIVersion: apiv3.GroupVersion().String(), Kind: apiv3.KindIPPool}, ObjectMeta: metav1.ObjectMeta{Name: poolName(i)}}
	p.Spec.CIDR, p.Spec.NATOutgoing = cidr.String(), true
	return p
}

// translate patches a pool, and returns what it became.
func translate(ctx context.Context, api dynamic.Interface, i int, yes bool) (*unstructured.Unstructured, error) {
	p, err := api.Resource(kube.IPPools).Patch(ctx, poolName(i), types.MergePatchType, fmt.Appendf(nil, `{"spec":{"natOutgoing":%t}}`, yes), metav1.PatchOptions{})
	if err != nil {
		return nil, fmt.Errorf("patching pool %s: %w", poolName(i), err)
	}
	return p, nil
}

// exemptNodes makes every agent watch all Nodes.
func exemptNodes(ctx context.Context, api dynamic.Interface) error {
	all := v1alpha1.ExclusionsIPPoolsAndHostIPs
	o := &v1alpha1.NATConfiguration{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: v1alpha1.KindNATConfiguration}, ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	o.Spec.Exclusions = &all
	return create(ctx, api.Resource(v1alpha1.GroupVersion().WithResource("natconfigurations")), o)
}
