package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ocilayout "github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// push sends a layout to a registry: the image under the name, and what refers to it beside it. It logs in with what
// `docker login` and the like have stored.
func push(ctx context.Context, dir, to string, out io.Writer) error {
	tag, err := name.NewTag(to, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("the name to push to is %q, want registry/name:tag: %w", to, err)
	}
	all, err := ocilayout.ImageIndexFromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no image in %s: run make image first", dir)
	}
	if err != nil {
		return err
	}
	list, err := all.IndexManifest()
	if err != nil {
		return fmt.Errorf("reading %s: %w", dir, err)
	}
	options := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	for _, d := range list.Manifests {
		if d.MediaType.IsIndex() {
			index, err := all.ImageIndex(d.Digest)
			if err != nil {
				return err
			}
			if err := remote.WriteIndex(tag, index, options...); err != nil {
				return fmt.Errorf("pushing the image: %w", err)
			}
			fmt.Fprintf(out, "%s@%s\n", tag, d.Digest)
			continue
		}
		artifact, err := all.Image(d.Digest)
		if err != nil {
			return err
		}
		if err := remote.Write(tag.Context().Digest(d.Digest.String()), artifact, options...); err != nil {
			return fmt.Errorf("pushing the SBOM: %w", err)
		}
	}
	return nil
}
