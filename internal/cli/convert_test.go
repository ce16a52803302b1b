package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is converted can be validated and applied as it is, and decides.
func TestConvertMasq(t *testing.T) {
	t.Parallel()
	config := "nonMasqueradeCIDRs: [172.16.0.0/12]\nmasqLinkLocal: true\n"
	out, errs, code := sallyport(t, t.TempDir(), config, "convert", "ip-masq-agent", "--pod-cidr", "10.244.0.0/16", "--random-fully=false", "-f", "-")
	if code != 0 || !strings.Contains(errs, "note: towards multicast") || !strings.Contains(out, "\n  linkLocal: Translate\n") {
		t.Fatalf("exit code %d\n%s\n%s", code, errs, out)
	}
	dir := t.TempDir()
	if applied, errs, code := sallyport(t, dir, out, "apply", "-f", "-"); code != 0 || strings.Count(applied, " created\n") != 3 {
		t.Fatalf("apply: exit code %d, %s%s", code, applied, errs)
	}
	for dst, want := range map[string]string{"172.16.0.1": "Kept", "169.254.169.254": "Translated", "198.51.100.1": "Translated", "10.0.0.1": "Translated"} {
		if said, errs, _ := sallyport(t, dir, "", "explain", "10.244.0.1", dst); !strings.HasPrefix(said, want+": ") {
			t.Errorf("%s: %s%s, want %s", dst, said, errs, want)
		}
	}
	out, errs, code = sallyport(t, t.TempDir(), "", "convert", "ip-masq-agent", "--pod-cidr", "10.244.0.0/16")
	if code != 0 || !strings.Contains(errs, "the list is the agent's own") || strings.Contains(out, "NATConfiguration") && !strings.Contains(out, "192.168.0.0/16") {
		t.Errorf("defaults: exit code %d\n%s\n%s", code, errs, out)
	}
}

func TestConvertCalico(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pool := strings.Replace(pools, "projectcalico.org/v3", "crd.projectcalico.org/v1", 1)
	for name, text := range map[string]string{
		"pools.yaml": pool,
		"felix.yaml": "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {natPortRange: 4000}\n",
		"readme.txt": "not read",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, errs, code := sallyport(t, t.TempDir(), "", "convert", "calico", "-f", dir)
	if code != 0 || strings.Count(out, "kind: IPPool\n") != 2 || !strings.Contains(out, "portRange: 4000-4000\n") {
		t.Fatalf("exit code %d\n%s\n%s", code, errs, out)
	}
	if _, errs, code := sallyport(t, t.TempDir(), out, "validate", "-f", "-"); code != 0 {
		t.Errorf("validate: %s", errs)
	}

	// What our rules refuse is a fault of the input, with its place; nothing is printed then.
	bad := strings.Replace(pool, "10.0.0.0/8", "169.254.0.0/16", 1)
	out, errs, code = sallyport(t, t.TempDir(), bad+"---\n[", "convert", "calico", "-f", "-")
	if code != 1 || out != "" || !strings.Contains(errs, "not valid YAML") {
		t.Errorf("not YAML: exit code %d, %q, %q", code, out, errs)
	}
	out, errs, code = sallyport(t, t.TempDir(), bad, "convert", "calico", "-f", "-")
	want(t, "link-local", errs, "sallyport: -:7: IPPool \"corporate\": spec.cidr: \"169.254.0.0/16\" overlaps the link-local range 169.254.0.0/16, which is never routed; choose another range\n")
	if code != 1 || out != "" {
		t.Errorf("link-local: exit code %d, %q", code, out)
	}
}

func TestConvertHelpAndCompletion(t *testing.T) {
	t.Parallel()
	if out, _, code := sallyport(t, t.TempDir(), "", "convert"); code != 0 || !strings.Contains(out, "ip-masq-agent") || !strings.Contains(out, "calico") {
		t.Errorf("bare: exit code %d, %s", code, out)
	}
	for _, sub := range []string{"ip-masq-agent", "calico"} {
		if out, _, _ := sallyport(t, t.TempDir(), "", "convert", sub, "--help"); !strings.Contains(out, "Examples:\n") {
			t.Errorf("%s --help: %s", sub, out)
		}
		if out, _, _ := sallyport(t, t.TempDir(), "", "__complete", "convert", sub, "-f", ""); !strings.HasPrefix(out, "yaml\nyml\njson\n:8") {
			t.Errorf("completing -f of %s: %q", sub, out)
		}
	}
}
