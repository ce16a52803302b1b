package route

import (
	"os"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/lab/labtest"
	"github.com/sallyport/sallyport/internal/model"
)

func TestForwardingIsTurnedOnAndKept(t *testing.T) {
	t.Parallel()
	c := newCluster(t, model.ModeCrossSubnet)
	a := c.nodes[0]
	labtest.Must(t, a.Sysctl("ipv4/ip_forward", "0"), a.Sysctl("ipv6/conf/all/forwarding", "0"), a.Sysctl("ipv6/conf/eth0/accept_ra", "1"),
		a.Sysctl("ipv6/conf/sly0123456789ab/accept_ra", "1"))
	read := func(name string) string {
		var value []byte
		labtest.Must(t, a.Do(func() (err error) { value, err = os.ReadFile("/proc/sys/net/" + name); return err }))
		return strings.TrimSpace(string(value))
	}
	labtest.Must(t, c.apply(0))
	for name, want := range map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv6/conf/sly0123456789ab/accept_ra": "1"} {
		if got := read(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	labtest.Must(t, a.Sysctl("ipv4/ip_forward", "0"))
	if drift := c.drift(0); drift != 1 {
		t.Errorf("%d things differ", drift)
	}
	labtest.Must(t, c.apply(0))
	if read("ipv4/ip_forward") != "1" {
		t.Error("it is not repaired")
	}
}

func TestAdvertisementsAreHeededStill(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(name, value string) {
		labtest.Must(t, os.MkdirAll(root+"/"+name[:strings.LastIndexByte(name, '/')], 0o755), os.WriteFile(root+"/"+name, []byte(value+"\n"), 0o644))
	}
	write(forward4, "0")
	write(forward6, "0")
	for link, value := range map[string]string{"eth0": "1", "eth1": "0", "eth2": "2"} {
		write("net/ipv6/conf/"+link+"/accept_ra", value)
	}
	links := func() ([]string, error) { return []string{"eth0", "eth1", "eth2", "gone"}, nil }
	s := newSysctls(root)
	labtest.Must(t, s.set(links, false))
	if n, err := s.off(false); n != 0 || err != nil {
		t.Error(n, err)
	}
	if n, err := s.off(true); n != 1 || err != nil {
		t.Error("without IPv6 pools, its forwarding is left alone:", n, err)
	}
	labtest.Must(t, s.set(links, true))
	for name, want := range map[string]string{forward4: "1", forward6: "1", "net/ipv6/conf/eth0/accept_ra": "2", "net/ipv6/conf/eth1/accept_ra": "0", "net/ipv6/conf/eth2/accept_ra": "2"} {
		if got, err := os.ReadFile(root + "/" + name); strings.TrimSpace(string(got)) != want || err != nil {
			t.Errorf("%s is %q, want %s", name, got, want)
		}
	}
	err := newSysctls(t.TempDir()).set(links, false)
	if err == nil || !strings.Contains(err.Error(), "net.ipv4.ip_forward") {
		t.Errorf("the error is %v", err)
	}
}
