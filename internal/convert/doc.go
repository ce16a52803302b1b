// Package convert turns what other programs that translate are configured with into resources of Sallyport.
//
// It promises that what it returns passes validation and decides as the original did, but for what its notes
// name: nothing is left out in silence. Input that the original program would refuse, or that means two things, is a
// fault with the field and the remedy, and then nothing is returned.
//
// It knows decoded documents and command line flags as values. It reads no files, prints nothing and applies
// nothing.
package convert
