package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	spdxType types.MediaType = "application/spdx+json"
	// The configuration of an artifact that has none:
	// https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md#guidance-for-an-empty-descriptor
	emptyType types.MediaType = "application/vnd.oci.empty.v1+json"

	noAssertion = "NOASSERTION"
)

// The parts of SPDX 2.3 that are used here: https://spdx.github.io/spdx-spec/v2.3/
type (
	document struct {
		SPDXVersion       string         `json:"spdxVersion"`
		DataLicense       string         `json:"dataLicense"`
		SPDXID            string         `json:"SPDXID"`
		Name              string         `json:"name"`
		DocumentNamespace string         `json:"documentNamespace"`
		CreationInfo      creation       `json:"creationInfo"`
		Packages          []component    `json:"packages"`
		Relationships     []relationship `json:"relationships"`
	}
	creation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	component struct {
		SPDXID           string        `json:"SPDXID"`
		Name             string        `json:"name"`
		Version          string        `json:"versionInfo"`
		FileName         string        `json:"packageFileName,omitempty"`
		DownloadLocation string        `json:"downloadLocation"`
		FilesAnalyzed    bool          `json:"filesAnalyzed"`
		Checksums        []checksum    `json:"checksums,omitempty"`
		SourceInfo       string        `json:"sourceInfo,omitempty"`
		LicenseConcluded string        `json:"licenseConcluded"`
		LicenseDeclared  string        `json:"licenseDeclared"`
		Copyright        string        `json:"copyrightText"`
		ExternalRefs     []externalRef `json:"externalRefs"`
		Purpose          string        `json:"primaryPackagePurpose"`
	}
	checksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	externalRef struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	relationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

// addSBOM makes the document, and the artifact by which one finds it who asks a registry what refers to the image.
func (p *part) addSBOM(r release, programs []program) error {
	d, err := describe(r, p.platform, programs)
	if err != nil {
		return fmt.Errorf("listing its modules: %w", err)
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if p.sbom, err = newBlob(spdxType, append(text, '\n')); err != nil {
		return err
	}
	if p.empty, err = newBlob(emptyType, []byte("{}")); err != nil {
		return err
	}
	subject := p.manifest.Descriptor
	p.referrer, err = newJSON(types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  string(spdxType),
		Config:        p.empty.Descriptor,
		Layers:        []v1.Descriptor{p.sbom.Descriptor},
		Subject:       &subject,
		Annotations:   map[string]string{"org.opencontainers.image.created": stamp(r)},
	})
	p.referrer.ArtifactType = string(spdxType)
	return err
}

func stamp(r release) string { return r.created.Format(time.RFC3339) }

// describe lists what is in the programs by what the linker wrote into them. The licenses of others are not known.
func describe(r release, platform v1.Platform, programs []program) (document, error) {
	var content []byte
	for _, p := range programs {
		content = append(content, p.content...)
	}
	whole, err := newBlob("", content)
	if err != nil {
		return document{}, err
	}
	d := document{
		SPDXVersion: "SPDX-2.3",
		DataLicense: "CC0-1.0",
		SPDXID:      "SPDXRef-DOCUMENT",
		Name:        fmt.Sprintf("%s %s %s", title, r.version, platform),
		// Unique, as it has to be, and the same for the same binaries.
		DocumentNamespace: source + "/sbom/" + whole.Digest.Hex,
		CreationInfo:      creation{stamp(r), []string{"Organization: Sallyport", "Tool: make image"}},
	}
	seen := map[string]component{}
	for _, p := range programs {
		if err := d.add(r, p, seen); err != nil {
			return document{}, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return d, nil
}

// add lists a program, and what it is built of as far as that is not listed yet.
func (d *document) add(r release, p program, seen map[string]component) error {
	file, err := newBlob("", p.content)
	if err != nil {
		return err
	}
	main := newComponent(p.info.Path, r.version)
	main.Name, main.FileName, main.Purpose = p.name, "/"+p.name, "APPLICATION"
	main.LicenseDeclared = license
	main.Checksums = []checksum{{"SHA256", file.Digest.Hex}}
	main.ExternalRefs[0].Locator = purl(p.info.Main.Path, r.version) + "#" + strings.TrimPrefix(p.info.Path, p.info.Main.Path+"/")
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(p.info.GoVersion, "go"), " ")
	all := []component{main, newComponent("stdlib", goVersion)}
	for _, m := range p.info.Deps {
		c, err := componentOf(m)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	for i, c := range all {
		other, listed := seen[c.SPDXID]
		if listed && (i == 0 || other.Name != c.Name || other.Version != c.Version) {
			return fmt.Errorf("%s %s and %s %s get the same identifier %s", other.Name, other.Version, c.Name, c.Version, c.SPDXID)
		}
		if !listed {
			seen[c.SPDXID] = c
			d.Packages = append(d.Packages, c)
		}
		if i == 0 {
			d.Relationships = append(d.Relationships, relationship{d.SPDXID, "DESCRIBES", main.SPDXID})
		} else {
			d.Relationships = append(d.Relationships, relationship{main.SPDXID, "DEPENDS_ON", c.SPDXID})
		}
	}
	return nil
}

func componentOf(m *debug.Module) (component, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	if m.Version == "" {
		return component{}, errors.New("the module " + m.Path + " is a directory and has no version that could be listed")
	}
	c := newComponent(m.Path, m.Version)
	if m.Sum != "" {
		c.SourceInfo = "go.sum " + m.Sum
	}
	return c, nil
}

// notInID are the characters that an SPDX identifier cannot have.
var notInID = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

func newComponent(path, version string) component {
	return component{
		SPDXID:           "SPDXRef-" + notInID.ReplaceAllString(path, "-"),
		Name:             path,
		Version:          version,
		DownloadLocation: noAssertion,
		LicenseConcluded: noAssertion,
		LicenseDeclared:  noAssertion,
		Copyright:        noAssertion,
		ExternalRefs:     []externalRef{{"PACKAGE-MANAGER", "purl", purl(path, version)}},
		Purpose:          "LIBRARY",
	}
}

// purl names a Go module for tools that look up vulnerabilities. The path is in lower case:
// https://github.com/package-url/purl-spec/blob/main/types-doc/golang-definition.md
func purl(path, version string) string {
	return "pkg:golang/" + strings.ToLower(path) + "@" + strings.ReplaceAll(version, "+", "%2B")
}
