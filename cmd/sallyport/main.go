// Command sallyport translates the outgoing connections of pods: agent, tools and demo in one program.
package main

import (
	"os"

	"github.com/sallyport/sallyport/internal/cli"
)

func main() { os.Exit(cli.Main()) }
