package cluster

import (
	"bytes"
	"encoding/json"
	"os"

	"github.com/sallyport/sallyport/internal/lab/labtest"
)

const (
	auditPolicyFile = "audit-policy.yaml"
	auditLogFile    = "audit.log"
)

// auditPolicy lets all requests be noted, without their bodies, but not what the API server asks itself.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:apiserver"]
- level: None
  nonResourceURLs: ["/readyz*"]
- level: Metadata
`

// Event is a request that the API server was sent.
type Event struct {
	User     string // such as system:serviceaccount:kube-system:sallyport
	NodeName string // of a token that is bound to a Pod: its node
	Verb     string // get, list, watch, create, update, patch, delete, deletecollection

	Group, Resource, Subresource, Namespace, Name string
	URI                                           string // as it was asked for, with parameters

	Code int  // the HTTP status
	Open bool // a watch that has begun; when it ends there is another event
}

func (c *Cluster) writeAuditPolicy() error {
	return os.WriteFile(c.file(auditPolicyFile), []byte(auditPolicy), 0o600)
}

// Audit returns the requests that the API server has answered, in the order of their answers, of all users but itself.
// The cluster must have been made with Options.Audit.
func (c *Cluster) Audit(t labtest.TB) []Event {
	t.Helper()
	if !c.audit {
		t.Fatal("the cluster was made without Options.Audit")
	}
	data, err := os.ReadFile(c.file(auditLogFile))
	labtest.Must(t, err)
	var events []Event
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		var e struct {
			Stage, Verb, RequestURI string
			User                    struct {
				Username string
				Extra    map[string][]string
			}
			ObjectRef      struct{ APIGroup, Resource, Subresource, Namespace, Name string }
			ResponseStatus struct{ Code int }
		}
		labtest.Must(t, json.Unmarshal(line, &e))
		event := Event{
			User: e.User.Username, Verb: e.Verb, URI: e.RequestURI,
			Group: e.ObjectRef.APIGroup, Resource: e.ObjectRef.Resource, Subresource: e.ObjectRef.Subresource,
			Namespace: e.ObjectRef.Namespace, Name: e.ObjectRef.Name,
			Code: e.ResponseStatus.Code, Open: e.Stage == "ResponseStarted",
		}
		if names := e.User.Extra["authentication.kubernetes.io/node-name"]; len(names) > 0 {
			event.NodeName = names[0]
		}
		events = append(events, event)
	}
	return events
}
