# Copyright: flux.burst contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate authority of this sandbox's own, and the certificate of what is served by TLS."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandbox.server.oauth import write_secret

DAYS = 30
NAMES = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    x509.DNSName("tunnel.cloudproxy.app"),
    x509.DNSName("*.googleapis.com"),
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: str, key: ec.EllipticCurvePrivateKey, ca_key: ec.EllipticCurvePrivateKey, ca: bool
) -> x509.Certificate:
    began = datetime.now(UTC) - timedelta(minutes=5)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("flux.burst sandbox CA"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True
        )
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(usage, critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def make(state: Path) -> ssl.SSLContext:
    """Write ca.pem, relay.pem, relay.key and ca-bundle.pem; return the server's TLS context.

    The bundle is for clients that take one file of authorities: it holds all that they trust otherwise, too.
    The authority's key stays in memory and is gone when this returns.
    """
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _unused in range(2))
    pem = serialization.Encoding.PEM
    ca = _certificate("flux.burst sandbox CA", ca_key, ca_key, True).public_bytes(pem)
    relay = _certificate("flux.burst sandbox relay", key, ca_key, False).public_bytes(pem)
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (state / "ca.pem").write_bytes(ca)
    (state / "relay.pem").write_bytes(relay)
    (state / "ca-bundle.pem").write_bytes(Path(certifi.where()).read_bytes() + ca)
    write_secret(state / "relay.key", private.decode())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(state / "relay.pem", state / "relay.key")
    return context
