package labtest

import (
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// JoinGroup has root be in a group, until the test ends, for the programs that the test starts: the daemons of FRR run only as members of
// theirs. It puts another file in place of /etc/group, in the mount namespace of the lab.
func JoinGroup(t TB, group string) {
	t.Helper()
	b, err := os.ReadFile("/etc/group")
	Must(t, err)
	file := filepath.Join(t.TempDir(), "group")
	joined := regexp.MustCompile(`(?m)^(`+regexp.QuoteMeta(group)+`:.*:)(.*)$`).ReplaceAll(b, []byte("${1}root,$2"))
	Must(t, os.WriteFile(file, joined, 0o644), unix.Mount(file, "/etc/group", "", unix.MS_BIND, "")) //nolint:gosec // that file is readable for all
	t.Cleanup(func() { Must(t, unix.Unmount("/etc/group", unix.MNT_DETACH)) })
}
