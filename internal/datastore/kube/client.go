package kube

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sallyport/sallyport/api/v1alpha1"
	apiv3 "github.com/sallyport/sallyport/api/v3"
)

// legacyVersion is where Calico keeps its pools unless a definition serves projectcalico.org/v3.
var legacyVersion = schema.GroupVersion{Group: "crd.projectcalico.org", Version: "v1"}

// resourceNodes is where Nodes are.
var resourceNodes = corev1.SchemeGroupVersion.WithResource("nodes")

// pathPools is the plural name of pools, which stands in the paths of several groups.
const pathPools = "ippools"

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

// API is a connection to an API server that notes how it answers.
type API struct {
	config  *rest.Config
	http    *http.Client
	dynamic dynamic.Interface
	scheme  func() (*runtime.Scheme, error)
	contact *contact
	network bool // what the pod network needs of an object is kept too; never changed once used
}

// dialPatience is how long a server may take to accept a connection: it is tried again soon.
const dialPatience = 5 * time.Second

// keepAlive notices within half a minute that a server has gone without a word, as where a cable was pulled.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}

// Connect prepares a connection, on which this program calls itself by a name; nothing is sent before the first call.
func Connect(cfg *rest.Config, agent string) (*API, error) {
	a := &API{config: rest.CopyConfig(cfg), scheme: sync.OnceValues(scheme), contact: newContact()}
	a.config.UserAgent = agent
	a.config.Wrap(a.contact.wrap)
	if a.config.Dial == nil {
		a.config.Dial = (&net.Dialer{Timeout: dialPatience, KeepAliveConfig: keepAlive}).DialContext
	}
	var err error
	if a.http, err = rest.HTTPClientFor(a.config); err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", cfg.Host, err)
	}
	if a.dynamic, err = dynamic.NewForConfigAndClient(a.config, a.http); err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", cfg.Host, err)
	}
	return a, nil
}

// typed returns a client of one group and version whose answers are decoded into the types that scheme has.
func (a *API) typed(version schema.GroupVersion) (rest.Interface, error) {
	s, err := a.scheme()
	if err != nil {
		return nil, err
	}
	cfg := rest.CopyConfig(a.config)
	cfg.GroupVersion, cfg.APIPath = &version, "/apis"
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(s).WithoutConversion()
	if version == corev1.SchemeGroupVersion {
		cfg.APIPath = "/api"
	}
	if version == corev1.SchemeGroupVersion || version == coordinationv1.SchemeGroupVersion { // what a definition defines has no such form
		cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	}
	return rest.RESTClientForConfigAndClient(cfg, a.http)
}

// untyped returns a client of one group and version whose answers are decoded into unstructured objects.
func (a *API) untyped(version schema.GroupVersion) (rest.Interface, error) {
	cfg := dynamic.ConfigFor(a.config)
	cfg.GroupVersion, cfg.APIPath = &version, "/apis"
	return rest.RESTClientForConfigAndClient(cfg, a.http)
}

// scheme knows the kinds that are decoded into types of their own, and no other: those of all of Kubernetes would be a third
// of the program.
func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	s.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Node{}, &corev1.NodeList{}, &corev1.Secret{})
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	s.AddKnownTypes(coordinationv1.SchemeGroupVersion, &coordinationv1.Lease{}, &coordinationv1.LeaseList{})
	metav1.AddToGroupVersion(s, coordinationv1.SchemeGroupVersion)
	if err := errors.Join(apiv3.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		return nil, fmt.Errorf("registering kinds: %w", err)
	}
	return s, nil
}
