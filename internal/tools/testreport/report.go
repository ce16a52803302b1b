package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// kernelReasons are what a message must hold, one of them, for a test to be skipped rightly: the
// machine's kernel lacks what is tested. Anything else that is missing can be installed.
var kernelReasons = []string{"kernel feature", "needs kernel"}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct {
	Action  string
	Package string
	Test    string // empty for what concerns a whole package
	Output  string
}

// testID names one test; test is empty for what concerns a whole package.
type testID struct{ pkg, test string }

// skip is a test that did not run.
type skip struct {
	testID
	message string
}

// String renders the skip on one line.
func (s skip) String() string { return fmt.Sprintf("%s %s: %s", s.pkg, s.test, s.message) }

// justified says whether the message names a missing kernel feature.
func (s skip) justified() bool {
	return slices.ContainsFunc(kernelReasons, func(r string) bool { return strings.Contains(s.message, r) })
}

// report follows a test run. Its zero value is not ready: use newReport.
type report struct {
	out    io.Writer
	output map[testID][]string // until the test ends
	ran    int                 // tests, not their subtests, that passed or failed
	failed int                 // packages
	skips  []skip
	fails  []failure // in the order in which they ended
}

// failure is a test that failed, and the end of what it said. Of what stands before that, it has the first line of each message: go test
// does not say which of them are errors.
type failure struct {
	testID
	tail []string
}

// tailLines bounds the tail of a failure, and the messages before it.
const tailLines = 30

// message is the first line of what a test logs.
var message = regexp.MustCompile(`^ +\w+_test\.go:\d+: `)

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[testID][]string{}}
}

// read follows the run to its end. As `go test` itself does, it prints the output of what failed and a
// line for each package. Lines that are not JSON (a compiler's message) are printed as they are.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, lines.Text())
			continue
		}
		r.add(e)
	}
	return lines.Err()
}

func (r *report) add(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "output":
		if e.Test == "" {
			r.packageOutput(e.Output)
			return
		}
		r.output[id] = append(r.output[id], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		r.end(id, e.Action)
	}
}

// packageOutput prints what a package says outside its tests, without the lines that say only that
// nothing was wrong.
func (r *report) packageOutput(line string) {
	if line == "PASS\n" || strings.Contains(line, "[no test files]") {
		return
	}
	fmt.Fprint(r.out, line)
}

func (r *report) end(id testID, action string) {
	output := r.output[id]
	delete(r.output, id)
	switch {
	case id.test == "":
		if action == "fail" {
			r.failed++
			r.unfinished(id.pkg)
		}
	case action == "skip":
		r.skips = append(r.skips, skip{id, skipMessage(output)})
	default:
		if action == "fail" {
			fmt.Fprint(r.out, strings.Join(output, ""))
			r.fail(id, output)
		}
		if !strings.Contains(id.test, "/") {
			r.ran++
		}
	}
}

// unfinished prints the output of tests that never ended, because their package crashed or ran out of
// time.
func (r *report) unfinished(pkg string) {
	var ids []testID
	for id := range r.output {
		if id.pkg == pkg {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b testID) int { return strings.Compare(a.test, b.test) })
	for _, id := range ids {
		fmt.Fprint(r.out, strings.Join(r.output[id], ""))
		r.fail(id, r.output[id])
		delete(r.output, id)
	}
}

// skipMessage picks what the test itself said out of its output.
func skipMessage(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "(no reason given)"
	}
	return strings.Join(said, " ")
}

func (r *report) fail(id testID, output []string) {
	at := max(0, len(output)-tailLines)
	var said []string
	for _, line := range output[:at] {
		if message.MatchString(line) {
			said = append(said, line)
		}
	}
	r.fails = append(r.fails, failure{id, append(said[max(0, len(said)-tailLines):], output[at:]...)})
}

// repeatFailures prints the end of what each failed test said, of those with subtests the failed subtests alone: in a long log, the
// reason stands far above its end.
func (r *report) repeatFailures() {
	for i, f := range r.fails {
		outer := slices.ContainsFunc(r.fails[:i], func(o failure) bool {
			return o.pkg == f.pkg && strings.HasPrefix(o.test, f.test+"/")
		})
		if !outer {
			fmt.Fprintf(r.out, "failed: %s %s\n%s", f.pkg, f.test, strings.Join(f.tail, ""))
		}
	}
}

// finish prints the skipped tests and the sum, and returns an error if a test failed, if none ran, or if
// one was skipped for another reason than the kernel.
func (r *report) finish() error {
	var unjustified int
	for _, s := range r.skips {
		note := ""
		if !s.justified() {
			unjustified++
			note = "  <- names no missing kernel feature"
		}
		fmt.Fprintf(r.out, "skipped: %s%s\n", s, note)
	}
	r.repeatFailures()
	fmt.Fprintf(r.out, "%d tests ran, %d skipped, %d packages failed\n", r.ran, len(r.skips), r.failed)

	var errs []error
	if r.failed > 0 {
		errs = append(errs, fmt.Errorf("%d packages failed", r.failed))
	}
	if unjustified > 0 {
		errs = append(errs, fmt.Errorf("%d tests were skipped for another reason than the kernel; "+
			"a skip's message must contain one of %q", unjustified, kernelReasons))
	}
	if r.ran == 0 {
		errs = append(errs, errors.New("no test ran"))
	}
	return errors.Join(errs...)
}
