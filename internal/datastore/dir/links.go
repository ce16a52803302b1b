package dir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many links one path may lead through, as in the kernel (path_resolution(7)).
const maxLinks = 40

// place is a name in a directory: a step on which the meaning of a path depends.
type place struct{ dir, name string }

// resolve follows a path link by link. It returns where the path leads and the places on which that
// depends: every link on the way, what the last component is, and the first component that is missing.
// The path is absolute. With an error, the places are those seen so far: when one of them changes, it is worth
// trying again.
func resolve(path string) (real string, places []place, err error) {
	real = "/"
	rest := strings.Split(strings.Trim(filepath.Clean(path), "/"), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			real = filepath.Dir(real)
			continue
		}
		here := place{real, name}
		next := filepath.Join(real, name)
		target, linkErr := os.Readlink(next)
		if linkErr == nil {
			places = append(places, here)
			if links++; links > maxLinks {
				return "", places, fmt.Errorf("%s: %w", path, unix.ELOOP)
			}
			if filepath.IsAbs(target) {
				real = "/"
			}
			rest = append(strings.Split(strings.Trim(target, "/"), "/"), rest...)
			continue
		}
		if _, statErr := os.Lstat(next); statErr != nil {
			// The missing name may appear, or what should hold it may be no directory and be replaced.
			return "", append(places, here, place{filepath.Dir(real), filepath.Base(real)}), statErr
		}
		if len(rest) == 0 {
			places = append(places, here)
		}
		real = next
	}
	return real, places, nil
}
