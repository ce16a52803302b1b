package kube

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	apiv3 "github.com/sallyport/sallyport/api/v3"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
)

// judgement is what the controller says in a pool's condition Allocatable.
type judgement struct {
	allocatable bool
	generation  int64 // of the pool that it judged
	reason      string
	message     string
}

// reasonPending is that of a pool which the controller has not judged as it is.
const reasonPending = "Pending"

// heed is a pool's condition, where the agent finds it allocatable, in view of what the controller says.
func (j *judgement) heed(c compile.Condition, generation int64) compile.Condition {
	switch {
	case j == nil:
		return compile.Condition{Reason: reasonPending, Message: "the controller has not said yet whether the pool is allocatable" + needsController}
	case j.generation != generation:
		return compile.Condition{Reason: reasonPending, Message: fmt.Sprintf("the controller has judged generation %d of the pool, which is at %d", j.generation, generation)}
	case !j.allocatable:
		return compile.Condition{Reason: j.reason, Message: j.message}
	}
	return c
}

// keptStatus keeps what is needed of a pool's condition Allocatable: whether it is, or for the pod network, all of it.
func keptStatus(o *unstructured.Unstructured, network bool) map[string]any {
	c := conditionOf(o, apiv3.IPPoolConditionAllocatable)
	if c == nil || c["status"] != "True" && !network {
		return nil
	}
	out := map[string]any{"type": apiv3.IPPoolConditionAllocatable, "status": c["status"]}
	if network {
		for _, field := range []string{"observedGeneration", "reason", "message"} {
			out[field] = c[field]
		}
	}
	return map[string]any{"conditions": []any{out}}
}

// judgementOf reads what keptStatus kept for the pod network; nil: nothing.
func judgementOf(status map[string]any) *judgement {
	conditions, _ := status["conditions"].([]any)
	for _, c := range conditions {
		m, _ := c.(map[string]any)
		if m["type"] != apiv3.IPPoolConditionAllocatable {
			continue
		}
		j := &judgement{allocatable: m["status"] == "True"}
		j.reason, _ = m["reason"].(string)
		j.message, _ = m["message"].(string)
		switch n := m["observedGeneration"].(type) {
		case int64:
			j.generation = n
		case float64: // it was read from disk
			j.generation = int64(n)
		default:
			return nil
		}
		return j
	}
	return nil
}

// sameJudgement says whether the controller says the same of both.
func sameJudgement(a, b *entry) bool {
	if a.judged == nil || b.judged == nil {
		return a.judged == b.judged
	}
	return *a.judged == *b.judged
}

// announced are those annotations of a Node that can be used: by which its agent announces itself, and those about BGP. Others are
// as if they were not there, and an error.
func announced(annotations map[string]string) (map[string]string, error) {
	var out map[string]string
	var errs []error
	for _, known := range []struct {
		key   string
		check func(string) error
	}{
		{datastore.AnnotationNetworkAddresses, addressesIn(datastore.AnnotationNetworkAddresses)},
		{datastore.AnnotationTunnelAddresses, addressesIn(datastore.AnnotationTunnelAddresses)},
		{model.AnnotationASNumber, func(value string) error { _, err := datastore.ASNumber(value); return err }},
		{model.AnnotationClusterID, func(value string) error { _, err := datastore.ClusterID(value); return err }},
	} {
		value, there := annotations[known.key]
		if !there {
			continue
		}
		if err := known.check(value); err != nil {
			errs = append(errs, err)
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[known.key] = value
	}
	return out, errors.Join(errs...)
}

// addressesIn checks an annotation that has addresses.
func addressesIn(key string) func(string) error {
	return func(value string) error {
		_, err := datastore.Announced(key, value)
		return err
	}
}
