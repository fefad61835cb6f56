package pluginset

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"aead.dev/minisign"

	"github.com/tasker-systems/tasker-host/config"
	"github.com/tasker-systems/tasker-host/host/internal/pluginhost/artifact"
)

// SignatureSuffix is appended to a file's name to form the name of its
// signature.
const SignatureSuffix = ".minisig"

// maxSignature limits the size of a signature or key file.
const maxSignature = 16 << 10

// signed computes the digest of a file that is read through it.
type signed struct{ reader *minisign.Reader }

func (s *signed) wrap(r io.Reader) io.Reader {
	s.reader = minisign.NewReader(r)
	return s.reader
}

// signature is the signature beside a file, and the means to check it.
type signature struct {
	reader *signed
	text   []byte // nil: there is none
	err    error  // it cannot be read
}

func readSignature(path string, reader *signed) signature {
	text, err := readSmall(path + SignatureSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return signature{reader: reader}
	}
	return signature{reader: reader, text: text, err: err}
}

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSignature {
		return nil, fmt.Errorf("%s is not a file of at most %d KiB", path, maxSignature>>10)
	}
	return os.ReadFile(path)
}

// check requires the signature of a trusted key, if there are any.
func (s signature) check(plugins *config.Plugins, slot *Slot) error {
	if len(plugins.Trust.Keys) == 0 {
		return nil
	}
	keys, err := trustedKeys(plugins)
	if err != nil {
		return err
	}
	id, err := s.verify(slot.Path, keys)
	slot.SignedBy = id
	return err
}

func trustedKeys(plugins *config.Plugins) ([]minisign.PublicKey, error) {
	keys := make([]minisign.PublicKey, len(plugins.Trust.Keys))
	for i, text := range plugins.Trust.Keys {
		if err := keys[i].UnmarshalText([]byte(text)); err != nil {
			return nil, fmt.Errorf("%s: trust.keys: %q is not a public key: %w", plugins.Path, text, err)
		}
	}
	return keys, nil
}

// verify returns the identifier of the trusted key that signed the file.
func (s signature) verify(path string, keys []minisign.PublicKey) (string, error) {
	refuse := func(reason, fix string) (string, error) {
		return "", &artifact.Error{Path: path, Reason: reason, Fix: fix, Err: s.err}
	}
	const sign = "sign it: tasker plugin sign FILE --key KEYFILE"
	if s.err != nil {
		return refuse("its signature cannot be read", sign)
	}
	if s.text == nil {
		return refuse("it is not signed: there is no "+filepath.Base(path)+SignatureSuffix+" beside it, and trust.keys requires one", sign)
	}
	var parsed minisign.Signature
	if err := parsed.UnmarshalText(s.text); err != nil {
		return refuse("its signature is not in minisign's format: "+err.Error(), sign)
	}
	if parsed.Algorithm != minisign.HashEdDSA {
		return refuse("its signature is in minisign's old format", "sign it again with a newer minisign, or with tasker plugin sign")
	}
	for _, key := range keys {
		if key.ID() != parsed.KeyID {
			continue
		}
		if s.reader.reader.Verify(key, s.text) {
			return keyID(key.ID()), nil
		}
		return refuse("its signature does not match: the file or the signature is not the one that key "+keyID(key.ID())+" made", "get both again from whoever signed them")
	}
	return refuse("it is signed by key "+keyID(parsed.KeyID)+", which is not in trust.keys", "if you trust the key, add it to trust.keys in plugins.toml")
}

// keyID writes an identifier as minisign does.
func keyID(id uint64) string { return fmt.Sprintf("%016X", id) }

// Keygen generates a key pair: the private key in a new file of mode 0600, the
// public one beside it in a file with the suffix .pub. It returns the public
// key in the form for trust.keys.
func Keygen(path string) (public string, err error) {
	pub, private, err := minisign.GenerateKey(nil)
	if err != nil {
		return "", fmt.Errorf("generate a key: %w", err)
	}
	secret, err := private.MarshalText()
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	open, err := pub.MarshalText()
	if err != nil {
		return "", fmt.Errorf("encode a key: %w", err)
	}
	if err := writeNew(path, append(secret, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("write the private key: %w", err)
	}
	if err := writeNew(path+".pub", append(open, '\n'), 0o644); err != nil {
		return "", fmt.Errorf("write the public key: %w", err)
	}
	return pub.String(), nil
}

// writeNew creates a file; it does not overwrite an existing one.
func writeNew(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// Sign signs a file with a private key and puts the signature beside it. The
// password is for keys that minisign has encrypted.
func Sign(path, keyFile, password string) (Signed, error) {
	key, err := privateKey(keyFile, password)
	if err != nil {
		return Signed{}, err
	}
	reader := &signed{}
	file, err := artifact.Inspect(path, reader.wrap)
	if err != nil {
		return Signed{}, err
	}
	comment := fmt.Sprintf("file:%s sha256:%s", filepath.Base(path), file.SHA256)
	text := reader.reader.SignWithComments(key, comment, "signature of a Tasker plugin")
	if err := replaceFile(path+SignatureSuffix, text, 0o644); err != nil {
		return Signed{}, fmt.Errorf("write the signature: %w", err)
	}
	return Signed{Path: path, SHA256: file.SHA256, Signature: path + SignatureSuffix, Key: keyID(key.ID())}, nil
}

// Signed is a file with its signature.
type Signed struct {
	Path, SHA256, Signature string
	Key                     string // the identifier of the key
}

func privateKey(path, password string) (minisign.PrivateKey, error) {
	text, err := readSmall(path)
	if err != nil {
		return minisign.PrivateKey{}, fmt.Errorf("read the private key: %w", err)
	}
	if minisign.IsEncrypted(text) {
		if password == "" {
			return minisign.PrivateKey{}, fmt.Errorf("the private key %s is encrypted: set MINISIGN_PASSWORD", path)
		}
		key, err := minisign.DecryptKey(password, text)
		if err != nil {
			return minisign.PrivateKey{}, fmt.Errorf("decrypt the private key %s: %w", path, err)
		}
		return key, nil
	}
	var key minisign.PrivateKey
	if err := key.UnmarshalText(text); err != nil {
		return minisign.PrivateKey{}, fmt.Errorf("%s is not a minisign private key: make one with 'tasker plugin keygen'", path)
	}
	return key, nil
}

// Verify checks a file's signature against public keys, each in text or in a
// file.
func Verify(path string, keys []string) (Signed, error) {
	trusted := make([]minisign.PublicKey, len(keys))
	for i, k := range keys {
		text := []byte(k)
		if !strings.HasPrefix(k, "RW") || len(k) != 56 {
			var err error
			if text, err = readSmall(k); err != nil {
				return Signed{}, fmt.Errorf("read the public key: %w", err)
			}
		}
		if err := trusted[i].UnmarshalText(text); err != nil {
			return Signed{}, fmt.Errorf("%s is not a minisign public key", k)
		}
	}
	reader := &signed{}
	file, err := artifact.Inspect(path, reader.wrap)
	if err != nil {
		return Signed{}, err
	}
	id, err := readSignature(path, reader).verify(path, trusted)
	if err != nil {
		return Signed{}, err
	}
	return Signed{Path: path, SHA256: file.SHA256, Signature: path + SignatureSuffix, Key: id}, nil
}

// replaceFile writes a temporary file and renames it, so nobody sees half of
// it.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
