package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/sallyport/sallyport/internal/datastore"
)

// What is read of pods and namespaces: their metadata, and nothing else.
var (
	resourcePods       = corev1.SchemeGroupVersion.WithResource("pods")
	resourceNamespaces = corev1.SchemeGroupVersion.WithResource("namespaces")
)

// staticPod is the annotation by which the pod that stands in the API for a static one says which UID the kubelet, and with it
// the container runtime, has for it.
const staticPod = "kubernetes.io/config.mirror"

// described is what is kept of a pod or namespace. It is never changed once made.
type described struct {
	namespace, name, uid string
	version              string
	static               string            // of a pod: its UID on the node, where that is another
	labels               map[string]string // of a namespace
	annotations          map[string]string // those of interest
}

// GetName tells a mirror which object it is of: names of pods are those of their namespace.
func (d *described) GetName() string { return podKey(d.namespace, d.name) }

func podKey(namespace, name string) string { return namespace + "/" + name }

// GetObjectMeta tells a reflector what it has to know.
func (d *described) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: d.namespace, Name: d.name, ResourceVersion: d.version}
}

// is says whether it is the pod with this UID; empty: any.
func (d *described) is(uid string) bool { return uid == "" || uid == d.uid || uid == d.static }

// describe keeps of metadata what is of interest; what was kept already stays.
func describe(o any) (any, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil
	}
	d := &described{namespace: m.Namespace, name: m.Name, uid: string(m.UID), version: m.ResourceVersion, static: m.Annotations[staticPod]}
	if m.Namespace == "" {
		d.labels = m.Labels
	}
	for _, key := range []string{datastore.AnnotationPools4, datastore.AnnotationPools6, datastore.AnnotationAddresses} {
		if value, there := m.Annotations[key]; there {
			if d.annotations == nil {
				d.annotations = map[string]string{}
			}
			d.annotations[key] = value
		}
	}
	return d, nil
}

// newDescribed is a mirror of what a selector selects of a resource, as far as it is of interest.
func newDescribed(client metadata.Interface, resource schema.GroupVersionResource, which fields.Selector) *Mirror[*described] {
	m := &Mirror[*described]{turn: describe, heard: func(*described, bool) {}, news: func() {}, live: map[string]*described{}}
	from := client.Resource(resource)
	m.reflector = cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = which.String()
			return from.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
			o.FieldSelector = which.String()
			return from.Watch(ctx, o)
		},
	}, &metav1.PartialObjectMetadata{}, m, cache.ReflectorOptions{Name: resource.Resource})
	return m
}

// followed pods and namespaces; nil where Sallyport is not the pod network.
type workloads struct {
	client           metadata.Interface
	pods, namespaces *Mirror[*described]
}

func newWorkloads(a *API, node string) (*workloads, error) {
	client, err := metadata.NewForConfigAndClient(a.config, a.http)
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", a.config.Host, err)
	}
	return &workloads{client,
		newDescribed(client, resourcePods, fields.OneTermEqualSelector("spec.nodeName", node)),
		newDescribed(client, resourceNamespaces, fields.Everything())}, nil
}

// Pod is what is known of a pod of this node and of its namespace, as datastore.Pods says: what was heard of them, and where
// there is nothing, or another pod of that name, what the API server has now. It may be called while Run runs, by many
// goroutines.
func (s *Store) Pod(ctx context.Context, namespace, name, uid string) (datastore.PodInfo, error) {
	pod, err := s.workloads.find(ctx, s.workloads.pods, resourcePods, namespace, name, uid)
	if err != nil {
		return datastore.PodInfo{}, err
	}
	in, err := s.workloads.find(ctx, s.workloads.namespaces, resourceNamespaces, "", namespace, "")
	if err != nil {
		return datastore.PodInfo{}, err
	}
	return datastore.PodInfo{Annotations: pod.annotations, NamespaceLabels: in.labels, NamespaceAnnotations: in.annotations}, nil
}

// find is what was heard of an object, or else what the API server has.
func (w *workloads) find(ctx context.Context, m *Mirror[*described], resource schema.GroupVersionResource, namespace, name, uid string) (*described, error) {
	if d, ok := m.Object(podKey(namespace, name)); ok && d.is(uid) {
		return d, nil
	}
	what := fmt.Sprintf("the namespace %s", name)
	if namespace != "" {
		what = fmt.Sprintf("the pod %s/%s", namespace, name)
	}
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	o, err := w.client.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%s does not exist any more", what)
	}
	if err != nil {
		return nil, asked("reading "+what, err)
	}
	k, err := describe(o)
	if err != nil {
		return nil, err
	}
	d := k.(*described)
	if !d.is(uid) {
		return nil, fmt.Errorf("%s with the UID %s does not exist any more: its name is that of another one, with the UID %s", what, uid, d.uid)
	}
	return d, nil
}

// Names are the pods of this node that were heard of.
func (s *Store) Names() map[string]string {
	pods, _ := s.workloads.pods.Objects()
	out := make(map[string]string, len(pods))
	for _, p := range pods {
		for _, uid := range []string{p.uid, p.static} {
			if uid != "" {
				out[uid] = p.GetName()
			}
		}
	}
	return out
}
