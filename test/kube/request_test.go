package kube

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/yaml"
	"github.com/sallyport/sallyport/test/kube/cluster"
)

// Where the resources are.
const (
	poolsPath          = "/apis/projectcalico.org/v3/ippools"
	configurationsPath = "/apis/sallyport.dev/v1alpha1/natconfigurations"

	reservationsPath          = "/apis/projectcalico.org/v3/ipreservations"
	networkConfigurationsPath = "/apis/sallyport.dev/v1alpha1/nodenetworkconfigurations"
	peersPath                 = "/apis/projectcalico.org/v3/bgppeers"
	filtersPath               = "/apis/projectcalico.org/v3/bgpfilters"
	bgpConfigurationsPath     = "/apis/projectcalico.org/v3/bgpconfigurations"
	blocksPath                = "/apis/sallyport.dev/v1alpha1/ipblocks"
	definitionsPath           = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
)

// server sends requests as they are written, without what client libraries add or take away.
type server struct {
	t      *testing.T
	client *http.Client
	url    string
}

func newServer(t *testing.T, c *cluster.Cluster) *server {
	t.Helper()
	config := c.Config()
	client, err := rest.HTTPClientFor(config)
	labtest.Must(t, err)
	t.Cleanup(client.CloseIdleConnections)
	return &server{t: t, client: client, url: config.Host}
}

// send makes a request with a body in YAML, and returns the HTTP status and the object that the server answers with.
func (s *server) send(method, path, body string) (int, map[string]any) {
	s.t.Helper()
	var data json.RawMessage
	err := yaml.Unmarshal([]byte(body), &data)
	labtest.Must(s.t, err)
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, bytes.NewReader(data))
	labtest.Must(s.t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	labtest.Must(s.t, err)
	answer, err := io.ReadAll(resp.Body)
	labtest.Must(s.t, err, resp.Body.Close())
	var object map[string]any
	if err := json.Unmarshal(answer, &object); err != nil {
		s.t.Fatalf("%s %s: %s: %v in %s", method, path, resp.Status, err, answer)
	}
	return resp.StatusCode, object
}

// judge makes a request whose effect is not kept, in which unknown fields are refused as kubectl does, and returns
// the fields that the server blames, sorted, and its words; none where it accepts the object.
func (s *server) judge(method, path, body string) ([]string, string) {
	s.t.Helper()
	code, answer := s.send(method, path+"?dryRun=All&fieldValidation=Strict", body)
	if code == http.StatusOK || code == http.StatusCreated {
		return nil, ""
	}
	data, err := json.Marshal(answer)
	labtest.Must(s.t, err)
	var status metav1.Status
	labtest.Must(s.t, json.Unmarshal(data, &status))
	fields := blamed(&status)
	if len(fields) == 0 {
		s.t.Errorf("%s %s of %s: refused without a field: %d %s", method, path, body, code, data)
	}
	return fields, status.Message
}

// What a server says of a fault without a path in the answer's details.
var (
	// unknownField is said of a field that the schema does not have, while the body is read.
	unknownField = regexp.MustCompile(`unknown field "([^"]+)"`)
	// wrongMetadata is said of metadata that have the wrong type, while the body is read.
	wrongMetadata = regexp.MustCompile(`cannot unmarshal \w+ into Go (?:struct field \w+(\.\S+)|value) of type`)
	// outOfRange is said of a number that does not fit into 32 bits.
	outOfRange = regexp.MustCompile(`must be of type integer with format int32 in (\S+)`)
)

// blamed returns the fields that an answer is about, sorted.
func blamed(status *metav1.Status) []string {
	var fields []string
	if status.Details != nil {
		for _, cause := range status.Details.Causes {
			if match := outOfRange.FindStringSubmatch(cause.Message); match != nil {
				fields = append(fields, match[1])
			} else if cause.Field != "" && cause.Field != "<nil>" {
				fields = append(fields, cause.Field)
			}
		}
	}
	for _, match := range unknownField.FindAllStringSubmatch(status.Message, -1) {
		fields = append(fields, match[1])
	}
	for _, match := range wrongMetadata.FindAllStringSubmatch(status.Message, -1) {
		fields = append(fields, "metadata"+match[1])
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// expect compares the fields that are blamed with the one that should be, where one ends with "..." its beginning.
func expect(t *testing.T, what string, got []string, message, want string) {
	t.Helper()
	prefix, clipped := strings.CutSuffix(want, "...")
	switch {
	case want == "" && len(got) == 0:
	case want != "" && len(got) == 1 && (got[0] == want || clipped && strings.HasPrefix(got[0], prefix)):
	default:
		t.Errorf("%s\nthe API server blames %q, want %q: %s", what, got, want, message)
	}
}
