package dir

import (
	"context"

	"github.com/sallyport/sallyport/internal/manifest"
)

// Others looks the directory over, and says which files declare none of these objects, as far as they were read without a
// fault and would be seen to change: neither those that were read too soon after a change, nor links. What is published
// when it has returned says whether another file has a fault.
func (s *Store) Others(ctx context.Context, keys []Key) (manifest.Others, error) {
	var out manifest.Others
	if err := s.ask(ctx, func() { out = s.others(keys) }); err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Store) others(keys []Key) manifest.Others {
	concerned := map[string]bool{}
	for _, k := range keys {
		for _, r := range s.index.refs[k] {
			concerned[r.file] = true
		}
	}
	out := make(manifest.Others, len(s.index.files))
	for name, f := range s.index.files {
		_, gone := s.index.gone[name]
		if concerned[name] || gone || f.racy || len(f.faults) > 0 || s.watcher.places[name] != nil || s.watcher.writing[name] != nil {
			continue
		}
		out[name] = f.id.String()
	}
	return out
}
