package kube

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/datastore/skew"
)

var (
	definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	apiServices = schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}
)

// VersionAnnotation stands on the CustomResourceDefinitions that are ours, with the version of Sallyport that
// they come from.
const VersionAnnotation = "sallyport.dev/version"

// definitionPatience bounds a question about definitions.
const definitionPatience = 10 * time.Second

// definition is where a kind is served, and by which CustomResourceDefinition.
type definition struct {
	version  schema.GroupVersion
	uid      string
	ours     string // the version that ours is annotated with; empty for somebody else's
	deleting bool
	created  int64  // in seconds since 1970
	doubt    string // what is wrong with it all the same; empty: nothing
}

// followed is by which definition a kind was read before, and in which version it is watched; the zero values say by none
// that is known, and that it is not.
type followed struct {
	uid     string
	version schema.GroupVersion
}

// missingError says that no definition serves a kind.
type missingError struct{ kind string }

func (e *missingError) Error() string {
	return fmt.Sprintf("no CustomResourceDefinition serves %ss: install those of Sallyport", e.kind)
}

// locate finds where a kind is served: a *missingError says nowhere, and a *skew.Error that its definition is not
// one for this version of the program.
func (a *API) locate(ctx context.Context, kind, mine string, was followed) (*definition, error) {
	ctx, cancel := context.WithTimeout(ctx, definitionPatience)
	defer cancel()
	d, err := a.locateServed(ctx, kind, was)
	if err != nil {
		return nil, err
	}
	if err := skew.Check("the CustomResourceDefinition of "+kind, d.ours, mine); err != nil {
		return nil, err
	}
	return d, nil
}

func (a *API) locateServed(ctx context.Context, kind string, was followed) (*definition, error) {
	if kind != datastore.KindIPPool { // of which alone Calico has definitions too
		from := sourceOf(kind)
		return a.served(ctx, kind, from.at.Resource, from.at.GroupVersion())
	}
	d, err := a.served(ctx, kind, pathPools, apiv3.GroupVersion())
	if err != nil && (!isMissing(err) || was.version == apiv3.GroupVersion()) {
		return nil, err // what Calico may have left in its own store does not take the place of a definition deleted by mistake
	}
	if err == nil {
		aggregated, err := a.aggregated(ctx)
		switch {
		case err != nil:
			return nil, err
		case !aggregated && d.ours == "":
			return d, nil
		case !aggregated:
			return a.oneOfBoth(ctx, d, was.uid)
		}
	}
	return a.served(ctx, kind, pathPools, legacyVersion)
}

// oneOfBoth decides between our definition and one with which Calico stores its own pools. Where there are both, somebody
// has most likely installed ours by mistake, and by it there are no pools: so the one that was followed before is
// followed on, and else Calico's.
func (a *API) oneOfBoth(ctx context.Context, ours *definition, known string) (*definition, error) {
	theirs, err := a.served(ctx, datastore.KindIPPool, pathPools, legacyVersion)
	switch {
	case isMissing(err):
		return ours, nil
	case err != nil:
		return nil, err
	}
	follow := theirs
	if known == ours.uid {
		follow = ours
	}
	follow.doubt = fmt.Sprintf("there are IPPools of Sallyport's definition and of Calico's, and those of %s alone are followed: delete the definition that is not meant (ippools.%s or ippools.%s), and its IPPools with it",
		follow.version, apiv3.Group, legacyVersion.Group)
	return follow, nil
}

// served asks for the definition of a resource, which must serve a version.
func (a *API) served(ctx context.Context, kind, plural string, version schema.GroupVersion) (*definition, error) {
	name := plural + "." + version.Group
	crd, err := a.dynamic.Resource(definitions).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &missingError{kind}
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the CustomResourceDefinition %s: %w", name, err)
	}
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions") // a server checks its definitions
	for _, v := range versions {
		if m, ok := v.(map[string]any); ok && m["name"] == version.Version && m["served"] == true {
			return &definition{version: version, uid: string(crd.GetUID()), ours: crd.GetAnnotations()[VersionAnnotation],
				deleting: crd.GetDeletionTimestamp() != nil, created: seconds(crd.GetCreationTimestamp())}, nil
		}
	}
	return nil, &missingError{kind}
}

// aggregated says whether another server than the cluster's own answers for projectcalico.org/v3, as Calico's did
// before it had definitions.
func (a *API) aggregated(ctx context.Context) (bool, error) {
	name := apiv3.Version + "." + apiv3.Group
	s, err := a.dynamic.Resource(apiServices).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("asking for the APIService %s: %w", name, err)
	}
	_, found, _ := unstructured.NestedMap(s.Object, "spec", "service")
	return found, nil
}

// Owned says whether IPPools are read where a definition of Sallyport's serves them, so that their status is for Sallyport
// of this version to write.
func (a *API) Owned(ctx context.Context, version string) (bool, error) {
	d, err := a.locate(ctx, datastore.KindIPPool, version, followed{})
	if err != nil {
		return false, err
	}
	return d.ours != "" && d.version == apiv3.GroupVersion(), nil
}
