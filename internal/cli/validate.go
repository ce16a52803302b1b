package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

func validateCommand(_ *global) *cobra.Command {
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:   "validate -f FILE|DIR|-",
		Short: "Check manifests without applying them",
		Long: `Check manifests by the same rules that the agent and the Kubernetes API apply. Every fault is printed with
the object, the field and the remedy; the exit code is 1 if there is one. It needs neither agent nor root.`,
		Example: "  sallyport validate -f pools.yaml\n  sallyport validate -f manifests/ -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			v, err := validate.New()
			if err != nil {
				return err
			}
			manifests, err := manifest.Read(files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			faults := manifests.Validate(v)
			if output == "json" {
				err = printFaults(cmd, faults)
			} else {
				for _, f := range faults {
					fmt.Fprintln(cmd.ErrOrStderr(), f)
				}
				if len(faults) == 0 {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "objects: %d, faults: 0\n", len(manifests.Objects()))
				}
			}
			if err == nil && len(faults) > 0 {
				return errSilent
			}
			return err
		},
	}
	filesFlag(cmd, &files)
	outputFlag(cmd, &output, "json")
	return cmd
}

// printFaults prints the form that scripts rely on: four fields, with file and line in the message of a
// document that could not be read.
func printFaults(cmd *cobra.Command, faults []model.Fault) error {
	type fault struct {
		Kind    string `json:"kind"`
		Name    string `json:"name"`
		Field   string `json:"field"`
		Message string `json:"message"`
	}
	out := make([]fault, 0, len(faults))
	for _, f := range faults {
		message := f.Message
		if f.Kind == "" {
			message = model.Fault{File: f.File, Line: f.Line, Message: f.Message}.String()
		}
		out = append(out, fault{f.Kind, f.Name, f.Field, message})
	}
	return printJSON(cmd.OutOrStdout(), out)
}

func filesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "file, directory, or - for standard input; may be repeated")
	must(cmd.MarkFlagRequired("filename"))
	must(cmd.MarkFlagFilename("filename", "yaml", "yml", "json"))
}
