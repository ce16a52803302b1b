package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/agent"
	"github.com/sallyport/sallyport/internal/compile"
	"github.com/sallyport/sallyport/internal/driver/nat"
	"github.com/sallyport/sallyport/internal/model"
	"github.com/sallyport/sallyport/internal/nftables"
)

// unanswered is what `status -o json` prints where no agent answers.
type unanswered struct {
	Ready  bool      `json:"ready"` // false: no one has confirmed it
	Reason string    `json:"reason"`
	Table  tableView `json:"table"`
}

// tableView says whether the kernel has a table of Sallyport's.
type tableView struct {
	State  string `json:"state"`            // one of those below
	Reason string `json:"reason,omitempty"` // why it was not checked
}

// What is known of the table.
const (
	tablePresent    = "present"
	tableAbsent     = "absent"
	tableNotChecked = "notChecked"
)

// printUnanswered prints what the kernel says where the agent says nothing, and returns the error of the command.
func printUnanswered(cmd *cobra.Command, output string, agentErr error) error {
	u := unanswered{Reason: agentErr.Error(), Table: lookForTable(cmd.Context())}
	var err error
	if output == "json" {
		err = printJSON(cmd.OutOrStdout(), u)
	} else {
		_, err = io.WriteString(human(cmd), saying("%s\n", u.Table.say(noAgent(cmd.Context(), agentErr))))
	}
	if err != nil {
		return errors.Join(agentErr, err)
	}
	return unconfirmedError{agentErr}
}

// noAgent says whether no agent runs, by the error of a call and by the lock that each agent holds: one that hangs, or that
// has another socket, may change the table.
func noAgent(ctx context.Context, agentErr error) bool {
	return errors.Is(agentErr, agent.ErrNoAgent) && agent.Holder(ctx) == nil
}

// lookForTable reads from the kernel whether the table is there.
func lookForTable(ctx context.Context) tableView {
	d, err := nat.New(nftables.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return tableView{State: tableNotChecked, Reason: err.Error()}
	}
	defer d.Close()
	nothing := compile.Compile(&model.Snapshot{}, model.Local{})
	switch p, err := d.Preview(ctx, nothing.NAT); {
	case err != nil:
		return tableView{State: tableNotChecked, Reason: err.Error()}
	case p.Present:
		return tableView{State: tablePresent}
	default:
		return tableView{State: tableAbsent}
	}
}

// say says how the table stands; kept says that no agent runs that could change it.
func (t tableView) say(kept bool) string {
	const table = "table inet " + nat.TableName
	switch t.State {
	case tablePresent:
		if kept {
			return table + " stands in the kernel of this node. It stays as it is until an agent runs again."
		}
		return table + " stands in the kernel of this node. Whether it is what the manifests say was NOT CHECKED."
	case tableAbsent:
		return table + " is not in the kernel of this node: nothing is translated by Sallyport."
	default:
		return "Whether " + table + " stands in the kernel of this node was NOT CHECKED: " + t.Reason
	}
}
