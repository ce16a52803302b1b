package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	const passed = `{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
	tests := []struct {
		name, in string
		shows    []string // in the output, in this order
		hides    string
		fault    string // in the error; empty for none
	}{
		{
			name:  "passing tests stay silent",
			in:    `{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}` + "\n" + passed,
			shows: []string{"ok  \tp", "1 tests ran, 0 skipped, 0 packages failed"},
			hides: "chatter",
		},
		{
			name: "a failing test is shown",
			in: `{"Action":"output","Package":"p","Test":"TestB/sub","Output":"got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestB/sub"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}
`,
			hides: "failed: p TestB\n",
			shows: []string{"got 1, want 2", "failed: p TestB/sub\n", "got 1, want 2", "1 tests ran, 0 skipped, 1 packages failed"},
			fault: "1 packages failed",
		},
		{
			name: "the error of a failing test is repeated, though the test said much after it",
			in: `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: got 1, want 2\n"}
` + strings.Repeat(`{"Action":"output","Package":"p","Test":"TestB","Output":"chatter\n"}`+"\n", 2*tailLines) + `{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p"}
`,
			shows: []string{"got 1, want 2", "failed: p TestB\n    b_test.go:7: got 1, want 2\nchatter"},
			fault: "1 packages failed",
		},
		{
			name: "a skip for the kernel is listed and right",
			in: `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: needs kernel 6.9: owned tables\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
` + passed,
			shows: []string{"skipped: p TestB: b_test.go:3: needs kernel 6.9"},
			hides: "names no",
		},
		{
			name: "a skip for another reason is listed and wrong",
			in: `{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:3: no nft here\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
` + passed,
			shows: []string{"no nft here  <- names no missing kernel feature"},
			fault: "1 tests were skipped",
		},
		{
			name: "a test that a crash cut short is shown",
			in: `{"Action":"output","Package":"p","Test":"TestB","Output":"panic: oops\n"}
{"Action":"fail","Package":"p"}
` + passed,
			shows: []string{"panic: oops", "failed: p TestB\n", "panic: oops"},
			fault: "1 packages failed",
		},
		{
			name:  "what is not JSON passes through",
			in:    "go: no such package\n" + passed,
			shows: []string{"go: no such package", "ok  \tp"},
		},
		{name: "nothing ran", in: "", fault: "no test ran"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			r := newReport(&out)
			if err := r.read(strings.NewReader(tt.in)); err != nil {
				t.Fatal(err)
			}
			err := r.finish()
			rest := out.String()
			for _, want := range tt.shows {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Errorf("output lacks %q in its place:\n%s", want, out.String())
				}
				rest = after
			}
			if tt.hides != "" && strings.Contains(out.String(), tt.hides) {
				t.Errorf("output shows %q:\n%s", tt.hides, out.String())
			}
			switch {
			case tt.fault == "" && err != nil:
				t.Errorf("error: %v, want none", err)
			case tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)):
				t.Errorf("error: %v, want one that contains %q", err, tt.fault)
			}
		})
	}
}
