package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// binary is a program, and what the Go linker wrote into it.
type binary struct {
	content  []byte
	info     *buildinfo.BuildInfo
	platform v1.Platform
}

// program is a binary by the name that it has in the image, in the root directory.
type program struct {
	name string
	binary
}

// machines are the platforms for which images are made, and what an ELF header calls them.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// readBinary refuses what could not run in an image that holds nothing else.
func readBinary(path string) (binary, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return binary{}, err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return binary{}, fmt.Errorf("it is no Go program: %w", err)
	}
	b := binary{content: content, info: info}
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS":
			b.platform.OS = s.Value
		case "GOARCH":
			b.platform.Architecture = s.Value
		}
	}
	machine, known := machines[b.platform.Architecture]
	if b.platform.OS != "linux" || !known {
		return binary{}, fmt.Errorf("it is built for %s, want linux/amd64 or linux/arm64", b.platform)
	}
	return b, static(content, machine)
}

// static fails for a program that needs another file to start.
func static(content []byte, machine elf.Machine) error {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("reading the ELF file: %w", err)
	}
	if f.Machine != machine {
		return fmt.Errorf("the ELF file is for %s, want %s", f.Machine, machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it is linked dynamically, and the image holds no library: build it with CGO_ENABLED=0")
		}
	}
	return nil
}
