"""The files that prove who we are: `--tls-ca`, `--tls-cert` and `--tls-key`.

They are looked at before a connection is tried. A connection would fail with them, too,
but nobody would learn which of them is to blame.
"""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path

from devicehost_client import Tls
from devicehost_client.ctl.command import UsageError


def credentials(options: argparse.Namespace) -> Tls | None:
    """Return what the arguments say about TLS; None if they say nothing.

    Raises:
        UsageError: one is missing, can't be read, or isn't what it should be.
    """
    given = {
        "--tls-ca": options.tls_ca,
        "--tls-cert": options.tls_cert,
        "--tls-key": options.tls_key,
    }
    missing = [flag for flag, file in given.items() if file is None]
    if len(missing) == len(given):
        return None
    if missing:
        raise UsageError(f"TLS needs {', '.join(missing)} as well; allowed: all three, or none")
    for flag, file in given.items():
        _check_readable(flag, file)
    tls = Tls(options.tls_ca, options.tls_cert, options.tls_key)
    _check_content(tls)
    return tls


def _check_readable(flag: str, file: Path) -> None:
    try:
        file.read_bytes()
    except OSError as error:
        raise UsageError(f"argument {flag}: can't read {file}: {error.strerror}") from error


def _check_content(tls: Tls) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise UsageError(f"argument --tls-ca: {tls.ca} has no certificate (PEM)") from error
    try:
        # The password keeps it from asking for one: gRPC takes no key that needs it.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except ssl.SSLError as error:
        raise UsageError(
            f"argument --tls-cert: {tls.certificate} and --tls-key {tls.key} are not a"
            " certificate (PEM) and its key, without a password"
        ) from error
