package kube

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/datastore"
)

// legacyVersion is where Calico keeps its pools unless a definition serves projectcalico.org/v3.
var legacyVersion = schema.GroupVersion{Group: "crd.projectcalico.org", Version: "v1"}

// The plural names of what is read and written, as they stand in paths.
const (
	pathPools    = "ippools"
	pathNAT      = "natconfigurations"
	pathNodes    = "nodes"
	pathStatuses = "sallyportnodes"
)

// AgentConfig reads how an agent reaches its API server: by a kubeconfig file, or else as the pod that it is. It
// does not look for a person's kubeconfig.
func AgentConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig != "" {
		cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("reading --kubeconfig: %w", err)
		}
		return cfg, nil
	}
	cfg, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, errors.New("this is no pod with a service account: give --kubeconfig")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the pod's service account: %w", err)
	}
	return cfg, nil
}

// UserConfig reads how a person reaches an API server, as kubectl does: by the file given, else by KUBECONFIG or
// ~/.kube/config.
func UserConfig(kubeconfig string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig (give --kubeconfig, or set KUBECONFIG): %w", err)
	}
	return cfg, nil
}

// api is a connection to an API server that notes how it answers.
type api struct {
	config  *rest.Config
	http    *http.Client
	client  client.Client
	scheme  *runtime.Scheme
	mapper  meta.RESTMapper
	contact *contact
}

// dialPatience is how long a server may take to accept a connection: it is tried again soon.
const dialPatience = 5 * time.Second

// keepAlive notices within half a minute that a server has gone without a word, as where a cable was pulled.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// connect prepares a connection; nothing is sent before the first call.
func connect(cfg *rest.Config, agent string) (*api, error) {
	a := &api{config: rest.CopyConfig(cfg), mapper: mapper(), contact: newContact()}
	a.config.UserAgent = agent
	a.config.Wrap(a.contact.wrap)
	if a.config.Dial == nil {
		a.config.Dial = (&net.Dialer{Timeout: dialPatience, KeepAliveConfig: keepAlive}).DialContext
	}
	var err error
	if a.scheme, err = Scheme(); err != nil {
		return nil, err
	}
	if a.http, err = rest.HTTPClientFor(a.config); err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", cfg.Host, err)
	}
	a.client, err = client.New(a.config, client.Options{HTTPClient: a.http, Scheme: a.scheme, Mapper: a.mapper})
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", cfg.Host, err)
	}
	return a, nil
}

// Scheme knows the kinds that are read and written.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(s), apiv3.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		return nil, fmt.Errorf("registering kinds: %w", err)
	}
	return s, nil
}

// MapperProvider makes a manager know where each kind is, without asking.
func MapperProvider(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper(), nil }

// mapper knows where each kind is, so that no agent ever asks.
func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []struct {
		schema.GroupVersion
		kind, plural string
	}{
		{apiv3.GroupVersion(), apiv3.KindIPPool, pathPools},
		{legacyVersion, apiv3.KindIPPool, pathPools},
		{v1alpha1.GroupVersion(), v1alpha1.KindNATConfiguration, pathNAT},
		{v1alpha1.GroupVersion(), v1alpha1.KindSallyportNode, pathStatuses},
		{corev1.SchemeGroupVersion, datastore.KindNode, pathNodes},
		{definitionVersion, "CustomResourceDefinition", "customresourcedefinitions"},
		{apiServiceVersion, "APIService", "apiservices"},
	} {
		plural := kind.WithResource(kind.plural)
		m.AddSpecific(kind.WithKind(kind.kind), plural, plural, meta.RESTScopeRoot)
	}
	return m
}
