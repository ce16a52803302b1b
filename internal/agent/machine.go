package agent

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/driver/hostaddr"
)

// firmwareUUID is where the kernel says which machine this is, as its firmware does (ABI/testing/sysfs-class-dmi). Root alone may
// read it; a container sees it too.
const firmwareUUID = "/sys/class/dmi/id/product_uuid"

// machine names this machine, the same after each boot; empty: it cannot be told from others. See kube.Options.
func machine() (string, error) {
	uuid, err := os.ReadFile(firmwareUUID)
	if err != nil {
		return "", fmt.Errorf("reading which machine this is: %w", err)
	}
	cards, err := hostaddr.Hardware()
	if err != nil {
		return "", err
	}
	return machineOf(string(uuid), cards)
}

// machineOf names a machine by the UUID of its firmware and its network cards together: some boards share a UUID, and clones of a
// virtual machine may have the same cards in networks apart. /etc/machine-id is a file, which a clone has too.
func machineOf(uuid string, cards []string) (string, error) {
	uuid = strings.TrimSpace(uuid)
	if strings.Trim(uuid, "0Ff-") == "" || len(cards) == 0 {
		return "", fmt.Errorf("the firmware names this machine %q, and %d network cards have an address of their own: that does not tell it from others", uuid, len(cards))
	}
	return strings.Join(append([]string{uuid}, cards...), " "), nil
}

// booted is when this machine booted, by its clock as that goes now; the zero time where the kernel does not say.
func booted() time.Time {
	var up unix.Timespec // with the time in which the machine slept
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(up.Nano()))
}
