// Package lastgood keeps the last good state of resources on the local disk, so that a node which boots while
// nothing can be read has what was in force before.
//
// It promises that a state is kept whole or not at all, that a damaged file is set aside and never taken for
// an empty one, and that what was written by a much newer version of the program is refused, not guessed at.
// It knows objects as keys and bytes: what these mean is its user's. It owns its file and nothing else.
package lastgood
