package kube

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// passwordPatience is how long the answer to one question for a Secret is waited for: other sessions wait meanwhile.
const passwordPatience = 5 * time.Second

// Password reads a key of a Secret in the namespace of the Lease, as datastore.Passwords says. It asks for that Secret alone, and keeps
// nothing of it. It may be called while Run runs.
func (s *Store) Password(ctx context.Context, ref model.BGPPassword) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, passwordPatience)
	defer cancel()
	what := fmt.Sprintf("the Secret %s/%s", s.namespace, ref.Name)
	c, err := s.api.typed(corev1.SchemeGroupVersion)
	if err != nil {
		return "", err
	}
	var secret corev1.Secret
	err = c.Get().Namespace(s.namespace).Resource("secrets").Name(ref.Name).Do(ctx).Into(&secret)
	switch {
	case apierrors.IsNotFound(err) && ref.Optional:
		return "", nil
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("%s does not exist: create it, with the key %s", what, ref.Key)
	case apierrors.IsForbidden(err):
		return "", fmt.Errorf("this agent may not read %s: add %s to bgp.passwordSecrets in the values of the chart", what, ref.Name)
	case err != nil:
		return "", asked("reading "+what, err)
	}
	value, there := secret.Data[ref.Key]
	if !there && ref.Optional {
		return "", nil
	}
	if !there {
		return "", fmt.Errorf("%s has no key %s: add it, or name another one", what, ref.Key)
	}
	password, err := datastore.PasswordOf(value)
	if err != nil {
		return "", fmt.Errorf("the key %s of %s %w", ref.Key, what, err)
	}
	return password, nil
}
