package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority signs the certificates of a cluster: the server's and its users'.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// pair is a certificate with its key, in PEM.
type pair struct{ cert, key []byte }

// validity is how long certificates are valid, which is longer than any test takes.
const validity = 24 * time.Hour

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := certificate(pkix.Name{CommonName: "test cluster"})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key}, nil
}

// certificate is what all certificates have.
func certificate(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		Subject: subject, SerialNumber: serial,
		NotBefore: now.Add(-validity), NotAfter: now.Add(validity), // clocks that jump are tested as well
	}, nil
}

// client makes the certificate of a user.
func (a *authority) client(user string, groups []string) (pair, error) {
	return a.sign(pkix.Name{CommonName: user, Organization: groups}, x509.ExtKeyUsageClientAuth, nil, nil)
}

// server makes the certificate of a server.
func (a *authority) server(names []string, addresses []net.IP) (pair, error) {
	return a.sign(pkix.Name{CommonName: "server"}, x509.ExtKeyUsageServerAuth, names, addresses)
}

func (a *authority) sign(subject pkix.Name, usage x509.ExtKeyUsage, names []string, addresses []net.IP) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	template, err := certificate(subject)
	if err != nil {
		return pair{}, err
	}
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{usage}
	template.DNSNames, template.IPAddresses = names, addresses
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return pair{}, err
	}
	pemKey, err := encodeKey(key)
	return pair{encodeCert(der), pemKey}, err
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// The files of keys and certificates, in the directory of a cluster.
const (
	caCertFile     = "ca.crt"
	caKeyFile      = "ca.key"
	serverCertFile = "server.crt"
	serverKeyFile  = "server.key"
	tokenKeyFile   = "token.key" // signs the tokens of service accounts
	tokenPubFile   = "token.pub"

	// What the API server shows to kubelets.
	kubeletCertFile = "kubelet-client.crt"
	kubeletKeyFile  = "kubelet-client.key"
)

// writeKeys makes what the servers need of keys and certificates, and writes it into a directory.
func (a *authority) writeKeys(dir string) error {
	server, err := a.server([]string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		[]net.IP{net.IPv4(127, 0, 0, 1), address.AsSlice(), serviceAddress.AsSlice()})
	if err != nil {
		return err
	}
	kubelet, err := a.client("kube-apiserver-kubelet-client", []string{adminGroup})
	if err != nil {
		return err
	}
	caKey, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	token, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tokenKey, err := encodeKey(token)
	if err != nil {
		return err
	}
	tokenPub, err := x509.MarshalPKIXPublicKey(token.Public())
	if err != nil {
		return err
	}
	var failed []error
	for name, data := range map[string][]byte{
		caCertFile: encodeCert(a.cert.Raw), caKeyFile: caKey,
		serverCertFile: server.cert, serverKeyFile: server.key,
		kubeletCertFile: kubelet.cert, kubeletKeyFile: kubelet.key,
		tokenKeyFile: tokenKey,
		tokenPubFile: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: tokenPub}),
	} {
		failed = append(failed, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	return errors.Join(failed...)
}
