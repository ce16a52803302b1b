// Package dir is the datastore of a standalone node: a directory of manifests, read, watched and edited.
//
// It promises that a fault never changes what is in force: while anything in the directory cannot be read,
// parsed or accepted, the snapshot stays the last good one of all resources, and the faults are published
// beside it. The last good state survives a restart in the state directory.
//
// What counts as a manifest, and what stands in one, package manifest says.
//
// A watcher (inotify.go, links.go, watch.go) says which files changed. The Store (store.go and what follows it) has
// them read and turns them into States. It owns its state file and nothing else; it never writes to the directory.
package dir
