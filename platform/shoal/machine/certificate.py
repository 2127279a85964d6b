"""One certificate per cluster, which is its pass as well: who holds the key may speak to it.

Why it exists: a Dask scheduler and a Spark server run whatever code they are sent. On a machine with several
users a loopback port is open to all of them, so every connection is TLS and both sides show this certificate.

What it must not do: be kept anywhere but in the cluster's private folder and memory.
"""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

_LIFE = datetime.timedelta(days=30)  # longer than any cluster's
_SKEW = datetime.timedelta(days=1)  # clocks of other machines may be behind, by hours


def name_of(cluster_id: str) -> str:
    """Whom a cluster's certificate is made out to; a name of no machine."""
    return f"{cluster_id}.shoal.internal"


def make_certificate(name: str) -> tuple[str, str]:
    """A fresh self-signed certificate for ``name`` and its key, both PEM (EC P-256)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    return certificate.public_bytes(pem).decode(), private.decode()


def keystore(certificate: str, key: str, password: str) -> bytes:
    """Both (PEM) in the one format that Java reads, PKCS 12; it is what to show and whom to trust at once."""
    return pkcs12.serialize_key_and_certificates(
        b"shoal",
        serialization.load_pem_private_key(key.encode(), None),  # type: ignore[arg-type]  # it is one of ours: EC
        x509.load_pem_x509_certificate(certificate.encode()),
        None,
        serialization.BestAvailableEncryption(password.encode()),
    )
