package api

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// TLSFiles are the paths of a certificate with its chain, and of its key, as PEM files.
// Both empty: no TLS.
type TLSFiles struct{ Cert, Key string }

// certificate holds the current content of the files: a renewed certificate is used
// without a restart.
type certificate struct {
	files TLSFiles
	now   func() time.Time

	mu       sync.Mutex
	loaded   *tls.Certificate
	modified time.Time // the later of the files' times
	looked   time.Time
}

// lookEvery is how often the files are checked while clients connect.
const lookEvery = time.Second

// loadCertificate reads the files. It returns nil if none are named.
func loadCertificate(files TLSFiles) (*certificate, error) {
	if files == (TLSFiles{}) {
		return nil, nil
	}
	c := &certificate{files: files, now: time.Now}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}

// get returns the newest complete certificate: the old one serves while the files are
// being replaced.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.now(); now.Sub(c.looked) >= lookEvery {
		c.looked = now
		if at, err := c.newest(); err == nil && !at.Equal(c.modified) {
			_ = c.load()
		}
	}
	return c.loaded, nil
}

func (c *certificate) load() error {
	at, err := c.newest()
	if err != nil {
		return fmt.Errorf("the certificate of the API: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("the certificate of the API, auth.tls.cert_file %s and key_file %s: %w", c.files.Cert, c.files.Key, err)
	}
	c.loaded, c.modified = &pair, at
	return nil
}

func (c *certificate) newest() (time.Time, error) {
	cert, certErr := os.Stat(c.files.Cert)
	key, keyErr := os.Stat(c.files.Key)
	if err := errors.Join(certErr, keyErr); err != nil {
		return time.Time{}, err
	}
	if key.ModTime().After(cert.ModTime()) {
		return key.ModTime(), nil
	}
	return cert.ModTime(), nil
}
