package route

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctls are the settings without which a node forwards nothing. They are set and kept, never turned off.
type sysctls struct{ root string }

// hostProcSys is where a container has the node's sysctls, since its own /proc/sys cannot be written to.
const hostProcSys = "/host/proc/sys"

func newSysctls(root string) sysctls {
	if root != "" {
		return sysctls{root}
	}
	if _, err := os.Stat(hostProcSys + "/net"); err == nil {
		return sysctls{hostProcSys}
	}
	return sysctls{"/proc/sys"}
}

// A setting is on where it is 1.
const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
)

// wanted are the settings of the families that are routed.
func (s sysctls) wanted(v6 bool) []string {
	if v6 {
		return []string{forward4, forward6}
	}
	return []string{forward4}
}

// off is how many settings are not as they should be.
func (s sysctls) off(v6 bool) (int, error) {
	n := 0
	for _, name := range s.wanted(v6) {
		on, err := s.on(name)
		if err != nil {
			return n, err
		}
		if !on {
			n++
		}
	}
	return n, nil
}

// set turns on what is off. A node that forwards IPv6 heeds router advertisements only with accept_ra 2 (Documentation/networking/
// ip-sysctl.rst), and forgets the default routes from them: interfaces that have 1 get that before. Links are those of pods
// left out, whose advertisements the node must not heed.
func (s sysctls) set(links func() ([]string, error), v6 bool) error {
	for _, name := range s.wanted(v6) {
		on, err := s.on(name)
		if err != nil {
			return err
		}
		if on {
			continue
		}
		if name == forward6 {
			if err := s.keepAdvertisements(links); err != nil {
				return err
			}
		}
		if err := s.write(name, "1"); err != nil {
			return err
		}
	}
	return nil
}

func (s sysctls) keepAdvertisements(links func() ([]string, error)) error {
	names, err := links()
	if err != nil {
		return err
	}
	for _, link := range names {
		name := "net/ipv6/conf/" + link + "/accept_ra"
		if on, err := s.on(name); errors.Is(err, fs.ErrNotExist) || err == nil && !on {
			continue
		} else if err != nil {
			return err
		}
		if err := s.write(name, "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s sysctls) on(name string) (bool, error) {
	value, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		return false, fmt.Errorf("reading the sysctl %s: %w", dotted(name), err)
	}
	return strings.TrimSpace(string(value)) == "1", nil
}

func (s sysctls) write(name, value string) error {
	if err := os.WriteFile(filepath.Join(s.root, name), []byte(value), 0); err != nil {
		return fmt.Errorf("the node does not forward what pods send: setting the sysctl %s to %s: %w; set it on the node (sysctl -w %[1]s=%[2]s), "+
			"or let the agent write to the node's /proc/sys, mounted at %[4]s in a container", dotted(name), value, err, hostProcSys)
	}
	return nil
}

func dotted(name string) string { return strings.ReplaceAll(name, "/", ".") }
