package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// outputFlag adds -o with the formats that a command knows.
func outputFlag(cmd *cobra.Command, value *string, formats ...string) {
	cmd.Flags().StringVarP(value, "output", "o", "", "output format: "+strings.Join(formats, ", ")+" (default: text for people)")
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)))
}

// checkOutput refuses a format that the command does not know; "" stands for the default.
func checkOutput(value string, known ...string) error {
	if slices.Contains(known, value) {
		return nil
	}
	return fmt.Errorf("--output: %q is not known: give one of %s", value, strings.Join(slices.DeleteFunc(known, func(s string) bool { return s == "" }), ", "))
}
