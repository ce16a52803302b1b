// Package manifest reads, locates and edits documents in files.
//
// What counts as a manifest is every file of a directory whose name ends in .yaml, .yml or .json and does not begin
// with a dot; links are followed. Subdirectories and other names are ignored. A file holds YAML or JSON, several
// documents, and Lists of objects; one with nothing in it at all is faulty, one with nothing but comments is not.
//
// The package promises that no document is lost in silence: each is an object, or a fault with file, line, field and
// remedy. An edit changes the documents that it is about and no other byte, and writes all of them or refuses.
//
// It splits files into documents (split.go, list.go), decodes them (decode.go, parse.go, object.go), finds lines
// (locate.go), reads files and directories (read.go, files.go, document.go), and edits them (edit.go, rewrite.go, commit.go)
// in their own text (patch.go, span.go, flow.go, align.go). It keeps nothing between two calls, watches nothing, and judges
// no field by its kind: that is the Validator's. It knows two things of kinds: that a Node declares its addresses in status,
// and that a pool with another cidr is another pool.
package manifest
