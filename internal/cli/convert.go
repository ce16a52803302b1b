package cli

import (
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/convert"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/validate"
)

func convertCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "convert",
		Short: "Turn the configuration of ip-masq-agent or Calico into manifests",
		Long: `Print what another program is configured with as manifests of Sallyport that decide alike. What has no
equivalent is named on standard error, and in a comment at the top of the output. Nothing is applied.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(convertMasqCommand(), convertCalicoCommand())
	return cmd
}

func convertMasqCommand() *cobra.Command {
	var files []string
	var flags convert.MasqFlags
	var random bool
	cmd := &cobra.Command{
		Use:   "ip-masq-agent --pod-cidr CIDR [-f FILE|-]",
		Short: "Turn the configuration of ip-masq-agent into manifests",
		Long: `Print pools that are not translated towards for the ranges that ip-masq-agent does not masquerade, pools that
are translated for the pods, and a NATConfiguration where ports differ from the default.

The input is the agent's own file, in YAML or JSON, or the ConfigMap that holds it: under the key config, as for
ip-masq-agent, or under keys that begin with ip-masq, as for ip-masq-agent-v2. Without -f the agent's defaults are
converted, as for one that has no configuration. Give the flags that your agent is started with.`,
		Example: `  kubectl -n kube-system get configmap ip-masq-agent -o yaml | sallyport convert ip-masq-agent --pod-cidr 10.244.0.0/16 -f -
  sallyport convert ip-masq-agent --pod-cidr 10.244.0.0/16 --pod-cidr fd00:10:244::/56 --enable-ipv6 -f config
  sallyport convert ip-masq-agent --pod-cidr 10.244.0.0/16 --nomasq-all-reserved-ranges --to-ports 32768-65535`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("random-fully") {
				flags.RandomFully = &random
			}
			return runConvert(cmd, files, func(docs []convert.Document) (*convert.Result, []model.Fault) {
				if len(files) > 0 && len(docs) == 0 {
					return nil, []model.Fault{{File: files[0], Message: "holds no configuration: leave -f out if the agent has none, and its defaults are converted"}}
				}
				return convert.IPMasqAgent(docs, flags)
			})
		},
	}
	convertFilesFlag(cmd, &files)
	f := cmd.Flags()
	f.StringArrayVar(&flags.PodCIDRs, "pod-cidr", nil, "range of the pods, which ip-masq-agent does not know; may be repeated")
	f.BoolVar(&flags.EnableIPv6, "enable-ipv6", false, "the agent has this flag: it translates IPv6 too")
	f.BoolVar(&flags.AllReservedRanges, "nomasq-all-reserved-ranges", false, "the agent has this flag: its own list holds all reserved ranges")
	f.BoolVar(&random, "random-fully", true, "the agent's flag of this name; false also for versions before 2.10, which keep source ports (default for ip-masq-agent-v2: false)")
	f.StringVar(&flags.ToPorts, "to-ports", "", "the agent's flag of this name, such as 32768-65535")
	return cmd
}

func convertCalicoCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "calico -f FILE|DIR|-",
		Short: "Turn Calico's IPPools and FelixConfigurations into manifests",
		Long: `Print Calico's IPPools as they are, without what a server has written into them, and what its FelixConfigurations
say of outgoing NAT as NATConfigurations: of default for all nodes, of node.NAME for that node.

The input is what kubectl or calicoctl prints, or manifests, of projectcalico.org/v3 or crd.projectcalico.org/v1, in
YAML or JSON.`,
		Example: `  kubectl get ippools,felixconfigurations -o yaml | sallyport convert calico -f -
  sallyport convert calico -f ippools.yaml -f felix.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runConvert(cmd, files, convert.Calico) },
	}
	convertFilesFlag(cmd, &files)
	must(cmd.MarkFlagRequired("filename"))
	return cmd
}

func convertFilesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil, "file, directory, or - for standard input; may be repeated")
	must(cmd.MarkFlagFilename("filename", "yaml", "yml", "json"))
}

// runConvert reads the input, converts and prints: all of it, or faults and nothing else.
func runConvert(cmd *cobra.Command, files []string, with func([]convert.Document) (*convert.Result, []model.Fault)) error {
	var read []manifest.Document
	var faults []model.Fault
	var readErr error
	err := reading(cmd.Context(), files, func() { read, faults, readErr = manifest.ReadDocuments(files, cmd.InOrStdin()) })
	if err == nil {
		err = readErr
	}
	if err != nil {
		return err
	}
	docs := make([]convert.Document, len(read))
	for i := range read {
		docs[i] = convert.Document{File: read[i].File, Value: read[i].Value, Line: read[i].Line}
	}
	var result *convert.Result
	if len(faults) == 0 {
		result, faults = with(docs)
	}
	if len(faults) == 0 {
		faults = checkConverted(result)
	}
	if len(faults) > 0 {
		for _, f := range faults {
			say(cmd.ErrOrStderr(), "sallyport: %s\n", f)
		}
		return errSilent
	}
	text, err := result.YAML()
	if err != nil {
		return err
	}
	for _, n := range result.Notes {
		say(cmd.ErrOrStderr(), "note: %s\n", n)
	}
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

// checkConverted validates what is to be printed: a pool may break a rule in Calico already.
func checkConverted(r *convert.Result) []model.Fault {
	v := validate.New()
	var faults []model.Fault
	for _, m := range r.Manifests {
		for _, f := range v.Create(m.Object) {
			if m.Source != nil {
				f.File, f.Line = m.Source.File, m.Source.Line(f.Field)
			}
			faults = append(faults, f)
		}
	}
	return faults
}
