"""The plugin's certificate: made for this process, and sent to the host in the
handshake. The host's own is in PLUGIN_CLIENT_CERT; each end accepts only the
other's."""

import base64
import os
import ssl
import subprocess

CONFIG = """
[req]
distinguished_name = name
x509_extensions = ext
prompt = no
[name]
CN = localhost
O = HashiCorp
[ext]
subjectAltName = DNS:localhost
basicConstraints = critical, CA:TRUE
keyUsage = critical, digitalSignature, keyEncipherment, keyAgreement, keyCertSign
extendedKeyUsage = clientAuth, serverAuth
"""


def new_certificate(directory):
    """Returns the key and the certificate in PEM, and the certificate in the form
    of the handshake: DER in base64 without padding."""
    config, key, cert = (os.path.join(directory, f) for f in ("openssl.cnf", "key.pem", "cert.pem"))
    with open(config, "w", encoding="ascii") as f:
        f.write(CONFIG)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "3650", "-config", config, "-keyout", key, "-out", cert],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with open(key, "rb") as f:
        key_pem = f.read()
    with open(cert, "rb") as f:
        cert_pem = f.read()
    der = ssl.PEM_cert_to_DER_cert(cert_pem.decode("ascii"))
    return key_pem, cert_pem, base64.b64encode(der).rstrip(b"=").decode("ascii")
