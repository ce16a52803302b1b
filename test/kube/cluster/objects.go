package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sallyport/sallyport/api/crds"
	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/yaml"
)

// InstallCRDs creates Sallyport's own CustomResourceDefinitions, and returns when their kinds are served.
func (c *Cluster) InstallCRDs(t labtest.TB) {
	t.Helper()
	names, err := fs.Glob(crds.Files(), "*.yaml")
	labtest.Must(t, err)
	var installed []*unstructured.Unstructured
	for _, name := range names {
		data, err := crds.Files().ReadFile(name)
		labtest.Must(t, err)
		crd := &unstructured.Unstructured{}
		labtest.Must(t, yaml.Unmarshal(data, &crd.Object))
		labtest.Must(t, c.create(t, crdResource, crd))
		installed = append(installed, crd)
	}
	for _, crd := range installed {
		labtest.Must(t, c.awaitServed(t, crd))
	}
}

// The resources that this package creates.
var (
	crdResource            = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	namespaceResource      = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	nodeResource           = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
	podResource            = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	serviceAccountResource = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
)

// awaitServed waits until the API server has said that it serves a definition's kind, and does.
func (c *Cluster) awaitServed(t labtest.TB, crd *unstructured.Unstructured) error {
	spec := crd.Object["spec"].(map[string]any)
	group, plural := spec["group"].(string), spec["names"].(map[string]any)["plural"].(string)
	var failed []error
	for _, version := range spec["versions"].([]any) {
		gvr := schema.GroupVersionResource{Group: group, Version: version.(map[string]any)["name"].(string), Resource: plural}
		failed = append(failed, poll(t, crd.GetName()+" is served", func(ctx context.Context) (bool, error) {
			got, err := c.objects.Resource(crdResource).Get(ctx, crd.GetName(), metav1.GetOptions{})
			if err != nil || !established(got) {
				return false, err
			}
			_, err = c.objects.Resource(gvr).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				return false, nil
			}
			return err == nil, err
		}))
	}
	return errors.Join(failed...)
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		if m, ok := c.(map[string]any); ok && m["type"] == "Established" {
			return m["status"] == "True"
		}
	}
	return false
}

// poll asks until the answer is yes.
func poll(t labtest.TB, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(t.Context(), requestAtMost)
	defer cancel()
	for {
		ok, err := done(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("waiting until %s: %w", what, err)
		case ok:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: not within %s", what, requestAtMost)
		case <-time.After(pollInterval):
		}
	}
}

// create creates an object, and is content where it exists.
func (c *Cluster) create(t labtest.TB, resource schema.GroupVersionResource, obj *unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(t.Context(), requestAtMost)
	defer cancel()
	_, err := c.objects.Resource(resource).Namespace(obj.GetNamespace()).Create(ctx, obj, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating %s %s: %w", obj.GetKind(), obj.GetName(), err)
	}
	return nil
}

// PodIdentity is a Pod on a node, by whose service account a program talks to the API server.
type PodIdentity struct{ Namespace, ServiceAccount, Pod, Node string }

// TokenKubeconfig writes a file like Kubeconfig, with a token of a service account that is bound to a Pod, as a kubelet
// gives it to the Pod: to the API server the user is system:serviceaccount:NAMESPACE:SERVICEACCOUNT, with the name of
// the node in the extra authentication.kubernetes.io/node-name. The namespace, the service account, the Node and the
// Pod are created where they do not exist. The token is valid for an hour, and while the Pod exists.
func (c *Cluster) TokenKubeconfig(t labtest.TB, id PodIdentity) string {
	t.Helper()
	object := func(kind, namespace, name string, spec map[string]any) *unstructured.Unstructured {
		obj := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kind}}
		obj.SetName(name)
		obj.SetNamespace(namespace)
		if spec != nil {
			obj.Object["spec"] = spec
		}
		return obj
	}
	labtest.Must(t, c.create(t, namespaceResource, object("Namespace", "", id.Namespace, nil)))
	labtest.Must(t,
		c.create(t, serviceAccountResource, object("ServiceAccount", id.Namespace, id.ServiceAccount, nil)),
		c.create(t, nodeResource, object("Node", "", id.Node, nil)),
		c.create(t, podResource, object("Pod", id.Namespace, id.Pod, map[string]any{
			"nodeName": id.Node, "serviceAccountName": id.ServiceAccount, "automountServiceAccountToken": false,
			"containers": []any{map[string]any{"name": "main", "image": "none"}},
		})),
	)
	ctx, cancel := context.WithTimeout(t.Context(), requestAtMost)
	defer cancel()
	request := object("TokenRequest", "", id.ServiceAccount, map[string]any{
		"expirationSeconds": int64(3600),
		"boundObjectRef":    map[string]any{"apiVersion": "v1", "kind": "Pod", "name": id.Pod},
	})
	request.SetAPIVersion("authentication.k8s.io/v1")
	answer, err := c.objects.Resource(serviceAccountResource).Namespace(id.Namespace).Create(ctx, request, metav1.CreateOptions{}, "token")
	labtest.Must(t, err)
	token, _, err := unstructured.NestedString(answer.Object, "status", "token")
	labtest.Must(t, err)
	return c.writeKubeconfig(t, &clientcmdapi.AuthInfo{Token: token})
}
