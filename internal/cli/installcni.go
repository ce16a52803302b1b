package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/cniinstall"
)

func installCNICommand() *cobra.Command {
	var files cniinstall.Files
	var once bool
	var format, level string
	cmd := &cobra.Command{
		Use:   "install-cni",
		Short: "Install the CNI plugin and its network configuration, and keep them",
		Long: `Put the CNI plugin and a network configuration into the directories where a container runtime looks for
them. The command then watches both files until a signal ends it, and repairs them when another program changes or
removes them. It leaves both files when it ends; "sallyport uninstall-cni" removes them.

The network configuration also lists the plugins portmap (for hostPorts) and bandwidth (for the annotations
kubernetes.io/ingress-bandwidth and egress-bandwidth), if the directory of plugins has them. It names version 1.1.0 of
CNI only if all of its plugins know that version: without it a runtime asks for no STATUS and no GC.

Network configurations of other networks stay as they are. A runtime uses the first one by name.`,
		Example: "  sallyport install-cni\n  sallyport install-cni --once --bin-dir /usr/lib/cni",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), format, level)
			if err != nil {
				return err
			}
			if files.Plugin == "" {
				if files.Plugin, err = besideProgram(); err != nil {
					return err
				}
			}
			files.Log = log
			if !once {
				return files.Keep(cmd.Context())
			}
			written, err := files.Install(cmd.Context())
			for _, path := range written {
				fmt.Fprintln(cmd.OutOrStdout(), path+" installed")
			}
			return err
		},
	}
	cniDirFlags(cmd, &files)
	cmd.Flags().StringVar(&files.Plugin, "plugin", "", "path of the plugin to install (default: "+cniinstall.PluginFile+" in the directory of this program)")
	cmd.Flags().BoolVar(&once, "once", false, "install both files, and end")
	logFlags(cmd, &format, &level)
	must(cmd.MarkFlagFilename("plugin"))
	return cmd
}

func uninstallCNICommand() *cobra.Command {
	var files cniinstall.Files
	cmd := &cobra.Command{
		Use:   "uninstall-cni",
		Short: "Remove the CNI plugin and its network configuration",
		Long: `Remove the two files that "sallyport install-cni" has installed. First end that command, and remove the pods that
the plugin has given a network: a runtime cannot remove them without the plugin.

A file of the same name that is not Sallyport's stays, and the command ends with an error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := files.Uninstall()
			for _, path := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), path+" removed")
			}
			return err
		},
	}
	cniDirFlags(cmd, &files)
	return cmd
}

func cniDirFlags(cmd *cobra.Command, f *cniinstall.Files) {
	cmd.Flags().StringVar(&f.BinDir, "bin-dir", "/opt/cni/bin", "directory where the container runtime looks for plugins")
	cmd.Flags().StringVar(&f.ConfDir, "conf-dir", "/etc/cni/net.d", "directory where it looks for network configurations")
	must(cmd.MarkFlagDirname("bin-dir"))
	must(cmd.MarkFlagDirname("conf-dir"))
}

// besideProgram is the plugin in the directory of this program, as in the image.
func besideProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program (give --plugin instead): %w", err)
	}
	return filepath.Join(filepath.Dir(self), cniinstall.PluginFile), nil
}
