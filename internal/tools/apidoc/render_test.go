package main

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/yaml"
)

const sample = `
spec:
  group: example.org
  names: {kind: Gate}
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        description: Gate is a way out.
        properties:
          kind: {type: string, description: hidden}
          spec:
            type: object
            required: [width]
            properties:
              bolts:
                type: array
                maxItems: 3
                description: Its bolts.
                items:
                  type: object
                  properties:
                    metal: {type: string, description: "Of what, such as br*."}
              lock: {type: string, enum: [Open, Shut], description: Whether one may pass.}
              width: {type: integer, description: How wide.}
`

const want = "\n## Gate\n\n`apiVersion: example.org/v1`, `kind: Gate`\n\n" + `Gate is a way out.

### spec.width

*integer, required*

How wide.

### spec.bolts

*list of objects, at most 3*

Its bolts.

### spec.bolts[].metal

*string*

Of what, such as br\*.

### spec.lock

` + "*string*: `Open`, `Shut`" + `

Whether one may pass.
`

func TestRender(t *testing.T) {
	t.Parallel()
	var d definition
	if err := yaml.Unmarshal([]byte(sample), &d); err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	render(&page, []definition{d})
	if got := page.String(); got != header+want {
		t.Errorf("got:\n%s\nwant:\n%s", got, header+want)
	}
}
