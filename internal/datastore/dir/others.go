package dir

import (
	"context"

	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/model"
)

// Edited looks the directory over before a command edits it: what is wrong with the directory itself, also where that is
// not published yet; and which files declare none of the objects to be edited, as far as they were read without a fault and
// would be seen to change: neither those that were read too soon after a change, nor links. What is published when it has
// returned says whether another file has a fault.
func (s *Store) Edited(ctx context.Context, keys []Key) (fault *model.Fault, others manifest.Others, err error) {
	var found *model.Fault
	var out manifest.Others
	if err := s.ask(ctx, func() { found, out = s.doubt(), s.others(keys) }); err != nil {
		return nil, nil, err
	}
	return found, out, nil
}

// doubt is what is wrong with the directory itself, or nil.
func (s *Store) doubt() *model.Fault {
	if absent := s.absent(); s.rootFault == nil && len(absent) > 0 {
		return s.lacking(absent)
	}
	return s.rootFault
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
