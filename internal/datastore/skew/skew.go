// Package skew says whether two versions of Sallyport may meet: a program, the definitions of its resources in a
// cluster, and the state that an earlier program left on a disk. They may differ by one minor version either way.
package skew

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
)

// Error is a pair of versions that are too far from each other.
type Error struct {
	What         string // what has the version Theirs
	Theirs, Mine string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s is of version %s, and this is sallyport %s: they may differ by one minor version; go from one to the other version by version", e.What, e.Theirs, e.Mine)
}

// Check returns an *Error where the version of something is more than one minor version, or a major one, away from
// that of this program. A version that is none, such as that of a build between releases, is not judged.
func Check(what, theirs, mine string) error {
	a, err1 := version.ParseSemantic(theirs)
	b, err2 := version.ParseSemantic(mine)
	known := err1 == nil && err2 == nil
	if known && (a.Major() != b.Major() || a.Minor() > b.Minor()+1 || b.Minor() > a.Minor()+1) {
		return &Error{What: what, Theirs: theirs, Mine: mine}
	}
	return nil
}
