package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// blockPage is how many blocks are listed at once where all are to be looked at.
const blockPage = 500

// Finalize puts a finalizer on an object as it was seen. It fails as apierrors.IsConflict where the object has changed since.
func (a *API) Finalize(ctx context.Context, resource schema.GroupVersionResource, o *metav1.ObjectMeta, finalizer, owner string) error {
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": o.UID, "resourceVersion": o.ResourceVersion,
		"finalizers": append(slices.Clone(o.Finalizers), finalizer)}})
	if err != nil {
		return fmt.Errorf("encoding a patch: %w", err)
	}
	_, err = a.dynamic.Resource(resource).Patch(ctx, o.Name, types.MergePatchType, b, metav1.PatchOptions{FieldManager: owner})
	return err
}

// LetGo takes a finalizer from an object as it was seen. That the object is gone is no error; it fails where the object has
// other finalizers now.
func (a *API) LetGo(ctx context.Context, resource schema.GroupVersionResource, o *metav1.ObjectMeta, finalizer, owner string) error {
	patch, err := withoutFinalizer(o.UID, o.Finalizers, finalizer)
	if patch == nil || err != nil {
		return err
	}
	_, err = a.dynamic.Resource(resource).Patch(ctx, o.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: owner})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Delete deletes an object that was seen. That it is gone, or another one has its place, is no error.
func (a *API) Delete(ctx context.Context, resource schema.GroupVersionResource, o *metav1.ObjectMeta) error {
	err := a.dynamic.Resource(resource).Delete(ctx, o.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// HasNode says whether the API server has a Node of a name at this moment.
func (a *API) HasNode(ctx context.Context, name string) (bool, error) {
	_, err := a.dynamic.Resource(resourceNodes).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// HasBlocks says whether a node owns a block of the pool with this UID at this moment, not as a watch has brought it.
func (a *API) HasBlocks(ctx context.Context, pool types.UID) (bool, error) {
	for next := ""; ; {
		page, err := a.dynamic.Resource(IPBlocks).List(ctx, metav1.ListOptions{Limit: blockPage, Continue: next})
		if err != nil {
			return false, fmt.Errorf("listing the blocks of a pool: %w", err)
		}
		for i := range page.Items {
			if uid, _, _ := unstructured.NestedString(page.Items[i].Object, "spec", "poolUID"); uid == string(pool) {
				return true, nil
			}
		}
		if next = page.GetContinue(); next == "" {
			return false, nil
		}
	}
}
