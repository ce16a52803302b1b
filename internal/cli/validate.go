package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

func validateCommand(_ *global) *cobra.Command {
	var files []string
	var output string
	var allowEmpty bool
	cmd := &cobra.Command{
		Use:   "validate -f FILE|DIR|-",
		Short: "Check manifests without applying them",
		Long: `Check manifests by the same rules that the agent and the Kubernetes API apply. Every fault is printed with
the object, the field and the remedy; the exit code is 1 if there is one. Input without any object is a fault
too, since a pipeline that broke gives none. The command needs neither agent nor root.`,
		Example: "  sallyport validate -f pools.yaml\n  sallyport validate -f manifests/ -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output, "", "json"); err != nil {
				return err
			}
			v := validate.New()
			manifests, err := readManifests(cmd.Context(), cmd, files, v)
			if err != nil {
				return err
			}
			faults := manifests.Faults()
			manifest.SortFaults(faults)
			if len(faults) == 0 && len(manifests.Objects()) == 0 && !allowEmpty {
				faults = append(faults, model.Fault{File: strings.Join(files, ", "), Message: "holds no object: check what writes it, or give --allow-empty"})
			}
			if output == "json" {
				err = printFaults(cmd, faults)
			} else {
				for _, f := range faults {
					say(cmd.ErrOrStderr(), "%s\n", f)
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
	cmd.Flags().BoolVar(&allowEmpty, "allow-empty", false, "accept input without any object")
	outputFlag(cmd, &output, "json")
	return cmd
}

// printFaults prints the form that scripts rely on: every fault with all of its fields.
func printFaults(cmd *cobra.Command, faults []model.Fault) error {
	out := make([]validateFault, len(faults))
	for i, f := range faults {
		out[i] = validateFault(f)
	}
	return printJSON(cmd.OutOrStdout(), out)
}

// validateFault is what `validate -o json` prints a list of: a model.Fault of which no field is left out.
type validateFault struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // from 1; 0 where it is not known
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Field   string `json:"field"`
	Message string `json:"message"`
}

func filesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "file, directory, or - for standard input; may be repeated")
	must(cmd.MarkFlagRequired("filename"))
	must(cmd.MarkFlagFilename("filename", "yaml", "yml", "json"))
}
