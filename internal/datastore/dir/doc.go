// Package dir is the datastore of a standalone node: a directory of manifests, read, watched and edited.
//
// It promises that a fault never changes what is in force: while anything in the directory cannot be read,
// parsed or accepted, the snapshot stays the last good one of all resources, and the faults are published
// beside it. The last good state survives a restart in the state directory.
//
// What counts as a manifest is every file of the directory itself whose name ends in .yaml, .yml or .json and
// does not begin with a dot; links are followed. Subdirectories and other names are ignored. A file holds YAML or
// JSON, several documents, and Lists of objects; one with nothing in it at all is faulty, one with nothing but
// comments is not.
//
// The package has three layers. Pure functions split files into documents (split.go), decode them
// (decode.go), find lines (locate.go) and compute edits (edit.go). A watcher (inotify.go, links.go, watch.go)
// says which files changed. The Store (store.go and what follows it) turns both into States.
// It owns its state file and nothing else; only Apply and Delete write to the directory.
package dir
