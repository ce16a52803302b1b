package cli

import (
	"fmt"
	"io"
	"reflect"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/text"
)

// human is standard output for people. What is for programs, JSON and YAML, goes to the command's own output as it is.
func human(cmd *cobra.Command) io.Writer { return safeWriter{cmd.OutOrStdout()} }

// safeWriter shows what would command a terminal in place of passing it on: names, field paths and messages come from
// files and servers that anyone may have written.
type safeWriter struct{ io.Writer }

func (w safeWriter) Write(b []byte) (int, error) {
	if _, err := io.WriteString(w.Writer, text.Show(string(b))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// say prints by a format whose line ends and tabs are its own: those in a text that it is given are escaped, so that
// names and messages, which anyone may have written, cannot look like lines or columns of the command's.
func say(w io.Writer, format string, args ...any) {
	_, _ = io.WriteString(w, saying(format, args...))
}

// saying is what say prints.
func saying(format string, args ...any) string {
	shown := slices.Clone(args)
	for i, a := range args {
		if k := reflect.ValueOf(a).Kind(); k < reflect.Bool || k > reflect.Float64 { // no number
			shown[i] = text.Line(fmt.Sprint(a))
		}
	}
	return fmt.Sprintf(format, shown...)
}
