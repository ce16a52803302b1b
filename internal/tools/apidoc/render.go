package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// definition is what the page needs of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Group string `json:"group"`
		Names struct {
			Kind string `json:"kind"`
		} `json:"names"`
		Versions []struct {
			Name   string `json:"name"`
			Schema struct {
				OpenAPI schema `json:"openAPIV3Schema"`
			} `json:"schema"`
		} `json:"versions"`
	} `json:"spec"`
}

// schema is what the page needs of the schema of a value.
type schema struct {
	Description string            `json:"description"`
	Type        string            `json:"type"`
	Format      string            `json:"format"`
	Enum        []string          `json:"enum"`
	Required    []string          `json:"required"`
	Properties  map[string]schema `json:"properties"`
	Items       *schema           `json:"items"`
	MaxItems    int               `json:"maxItems"`
}

const header = `<!-- Written by "make docs" from api/crds. Do not edit. -->

# Resources

No kind belongs to a namespace. A field that is not listed here is refused. The definitions
themselves, with all rules that are checked, are in [api/crds](../../api/crds).
`

func render(w io.Writer, definitions []definition) {
	fmt.Fprint(w, header)
	for _, d := range definitions {
		for _, v := range d.Spec.Versions {
			fmt.Fprintf(w, "\n## %s\n\n", d.Spec.Names.Kind)
			fmt.Fprintf(w, "`apiVersion: %s/%s`, `kind: %s`\n\n", d.Spec.Group, v.Name, d.Spec.Names.Kind)
			fmt.Fprintf(w, "%s\n", paragraph(v.Schema.OpenAPI.Description))
			for _, part := range []string{"spec", "status"} {
				if s, ok := v.Schema.OpenAPI.Properties[part]; ok {
					renderFields(w, part, s)
				}
			}
		}
	}
}

// renderFields writes a section for each field below a path, those that are required first.
func renderFields(w io.Writer, path string, s schema) {
	names := slices.Sorted(maps.Keys(s.Properties))
	slices.SortStableFunc(names, func(a, b string) int { return rank(s, a) - rank(s, b) })
	for _, name := range names {
		field := s.Properties[name]
		facts := []string{typeOf(field)}
		if slices.Contains(s.Required, name) {
			facts = append(facts, "required")
		}
		if field.MaxItems > 0 {
			facts = append(facts, fmt.Sprintf("at most %d", field.MaxItems))
		}
		fmt.Fprintf(w, "\n### %s.%s\n\n*%s*", path, name, strings.Join(facts, ", "))
		if values := valuesOf(field); len(values) > 0 {
			fmt.Fprintf(w, ": `%s`", strings.Join(values, "`, `"))
		}
		fmt.Fprintf(w, "\n\n%s\n", paragraph(field.Description))
		switch {
		case field.Type == "object":
			renderFields(w, path+"."+name, field)
		case field.Items != nil && field.Items.Type == "object":
			renderFields(w, path+"."+name+"[]", *field.Items)
		}
	}
}

func rank(s schema, name string) int {
	if slices.Contains(s.Required, name) {
		return 0
	}
	return 1
}

// typeOf names the type of a value as one would in a sentence.
func typeOf(s schema) string {
	switch {
	case s.Type == "array" && s.Items != nil:
		return "list of " + typeOf(*s.Items) + "s"
	case s.Format == "date-time":
		return "time"
	default:
		return s.Type
	}
}

// valuesOf lists the only values that a field, or an item of it, may have.
func valuesOf(s schema) []string {
	if s.Items != nil {
		return s.Items.Enum
	}
	return s.Enum
}

// paragraph makes text of a comment safe in Markdown: an asterisk there is one in a pattern.
func paragraph(text string) string { return strings.ReplaceAll(text, "*", `\*`) }
