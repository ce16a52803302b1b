// Image makes Sallyport's container image from binaries that are built, and sends it to a registry.
//
// The image is two static binaries alone, the program and the CNI plugin beside it: there is no base image, so nothing is fetched, and no shell. All that is
// written depends on the binaries and the arguments and on nothing else, neither on the clock nor on the place:
// equal binaries give an equal digest.
//
// It promises an OCI layout with one index for all platforms and, for each platform, an SPDX document that refers
// to its image (OCI 1.1, `subject`), the same document as a file, and an archive with that platform's image
// alone, which `ctr images import` and `docker load` read.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

const usage = `usage:
  image build -out DIR -archives PREFIX -version VERSION -created SECONDS [-revision COMMIT] BINARY...
        with the CNI plugin, sallyport-cni, beside each BINARY
  image push -layout DIR REGISTRY/NAME:TAG`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "image:", err)
	os.Exit(1)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("no command\n" + usage)
	}
	switch args[0] {
	case "build":
		return runBuild(args[1:], out)
	case "push":
		return runPush(ctx, args[1:], out)
	default:
		return fmt.Errorf("there is no command %q\n%s", args[0], usage)
	}
}

// release is what the image says of the build; it is the same for all platforms.
type release struct {
	tag      name.Tag // sallyport:VERSION
	version  string
	revision string    // the commit, or nothing
	created  time.Time // of the commit, in UTC
}

func newRelease(version, revision, created string) (release, error) {
	if version == "" {
		return release{}, errors.New("-version is empty")
	}
	tag, err := name.NewTag(title + ":" + version)
	if err != nil {
		return release{}, fmt.Errorf("the version %q cannot be an image's tag: only letters, digits, '_', '.' and '-' can, 128 of them at most", version)
	}
	if created == "" {
		return release{}, errors.New("the time of the commit is not known: build from a git checkout, or set SOURCE_DATE_EPOCH to seconds since 1970")
	}
	seconds, err := strconv.ParseInt(created, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<33 { // 1<<33 is what a header of the layer holds
		return release{}, fmt.Errorf("the time of the commit, SOURCE_DATE_EPOCH, is %q: it has to be seconds since 1970", created)
	}
	return release{tag, version, revision, time.Unix(seconds, 0).UTC()}, nil
}

func runBuild(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	dir := flags.String("out", "", "directory of the OCI layout; one that is there is replaced")
	archives := flags.String("archives", "", "path of the other files, to which the architecture and .tar or .spdx.json are added")
	version := flags.String("version", "", "version of Sallyport, which is the image's tag")
	revision := flags.String("revision", "", "commit that was built, if known")
	created := flags.String("created", "", "time of the commit, in seconds since 1970")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || *archives == "" || flags.NArg() == 0 {
		return errors.New("-out, -archives and at least one binary are needed\n" + usage)
	}
	r, err := newRelease(*version, *revision, *created)
	if err != nil {
		return err
	}
	var parts []part
	for _, path := range flags.Args() {
		p, err := newPart(r, path)
		if err != nil {
			return fmt.Errorf("making an image of %s: %w", path, err)
		}
		parts = append(parts, p)
	}
	return write(*dir, *archives, r, parts, out)
}

func runPush(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("push", flag.ContinueOnError)
	dir := flags.String("layout", "", "directory of the OCI layout that `image build` wrote")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" || flags.NArg() != 1 || flags.Arg(0) == "" {
		return errors.New("-layout and the name to push to are needed (make image-push IMAGE=registry/name:tag)\n" + usage)
	}
	return push(ctx, *dir, flags.Arg(0), out)
}
