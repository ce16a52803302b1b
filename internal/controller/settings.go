package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/datastore"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/selector"
)

// setting is one NATConfiguration, and what comes of it.
type setting struct {
	model    model.NATConfiguration
	selector *selector.Selector

	reason, fault string // why it cannot be used, or ""

	nodes   int             // that it selects, of those that have an agent
	sets    bool            // it sets a field on one of them
	decides bool            // and decides one
	others  map[string]bool // who decides what it sets
}

// judgeSettings says what the conditions of each NATConfiguration should be. Nodes are all that are to have an agent, and
// stand how those of them stand that are ready.
func judgeSettings(configs []v1alpha1.NATConfiguration, s seen, nodes []labels.Set, stand []standing) [][]metav1.Condition {
	all := settingsOf(configs)
	decide(all, nodes)
	out := make([][]metav1.Condition, len(configs))
	for i := range configs {
		c := &configs[i]
		accepted, programmed := all[i].accepted(), all[i].programmed(c, s, stand)
		accepted.ObservedGeneration, programmed.ObservedGeneration = c.Generation, c.Generation
		out[i] = []metav1.Condition{accepted, programmed}
	}
	return out
}

// settingsOf are the configurations as values.
func settingsOf(configs []v1alpha1.NATConfiguration) []setting {
	out := make([]setting, len(configs))
	for i := range configs {
		s, err := &out[i], error(nil)
		if s.model, err = datastore.NATConfiguration(&configs[i]); err != nil {
			s.reason, s.fault = v1alpha1.NATConfigurationReasonInvalid, err.Error()
		} else if s.selector, err = selector.Parse(s.model.NodeSelector); err != nil {
			s.reason, s.fault = v1alpha1.NATConfigurationReasonInvalidSelector, fmt.Sprintf("spec.nodeSelector: is not a selector: %v", err)
		}
	}
	return out
}

// decide finds out which settings decide what. Nodes that the same ones select are looked at once.
func decide(all []setting, nodes []labels.Set) {
	seen := map[string]bool{}
	for _, labels := range nodes {
		var chosen []*model.NATConfiguration
		key := make([]byte, len(all))
		for i := range all {
			if s := &all[i]; s.fault == "" && s.selector.Matches(labels) {
				s.nodes++
				key[i], chosen = 1, append(chosen, &s.model)
			}
		}
		if len(chosen) == 0 || seen[string(key)] {
			continue
		}
		seen[string(key)] = true
		for _, f := range compile.Merge(chosen) {
			for i := range all {
				all[i].note(&f)
			}
		}
	}
}

// note notes who decides one field on a node.
func (s *setting) note(f *compile.Setting) {
	switch {
	case f.NATConfiguration == s.model.Name:
		s.sets, s.decides = true, true
	case slices.Contains(f.Overridden, s.model.Name):
		s.sets = true
		if s.others == nil {
			s.others = map[string]bool{}
		}
		s.others[f.NATConfiguration] = true
	}
}

// overridden says by what everything is decided that it sets; empty: not everything is.
func (s *setting) overridden() string {
	if s.fault != "" || !s.sets || s.decides {
		return ""
	}
	var by few
	for _, name := range slices.Sorted(maps.Keys(s.others)) {
		by.add(name)
	}
	return "on every node that it selects, other NATConfigurations decide every field that it sets: " + by.join(", ")
}

func (s *setting) accepted() metav1.Condition {
	say := func(yes bool, reason, message string) metav1.Condition {
		return condition(0, v1alpha1.NATConfigurationConditionAccepted, is(yes), reason, message)
	}
	if s.fault != "" {
		return say(false, s.reason, s.fault)
	}
	if by := s.overridden(); by != "" {
		return say(false, v1alpha1.NATConfigurationReasonOverridden, by)
	}
	if len(s.others) > 0 {
		return say(true, v1alpha1.NATConfigurationReasonAccepted, "it decides some of what it sets; the rest is decided by "+strings.Join(slices.Sorted(maps.Keys(s.others)), ", "))
	}
	return say(true, v1alpha1.NATConfigurationReasonAccepted, "it decides all that it sets on the nodes that it selects")
}

func (s *setting) programmed(c *v1alpha1.NATConfiguration, seen seen, stand []standing) metav1.Condition {
	say := func(reason, message string) metav1.Condition {
		return condition(0, programmedType, metav1.ConditionFalse, reason, message)
	}
	if s.fault != "" {
		return say(s.reason, s.fault)
	}
	if by := s.overridden(); by != "" {
		return say(v1alpha1.NATConfigurationReasonOverridden, by)
	}
	if s.nodes == 0 {
		return say(v1alpha1.NATConfigurationReasonNoNodes, "spec.nodeSelector selects no node that has an agent; look at the labels of the nodes")
	}
	var selected, faulty []standing
	for _, n := range stand {
		if !s.selector.Matches(n.labels) {
			continue
		}
		selected = append(selected, n)
		if n.fault != "" || len(n.exceptions) > 0 {
			faulty = append(faulty, n)
		}
	}
	h := holding{what: "settings", key: v1alpha1.KindNATConfiguration + "/" + c.Name, generation: c.Generation, reached: seen[c.UID], at: func(n *standing) uint64 { return n.settings }}
	return h.judge(selected, faulty)
}

// withAgent are the labels of the nodes that are to have an agent.
func withAgent(nodes []corev1.Node, agents labels.Selector) (out []labels.Set) {
	for i := range nodes {
		if hasAgent(&nodes[i], agents) {
			out = append(out, nodes[i].Labels)
		}
	}
	return out
}
