"""The files for TLS."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import trustme

from devicehost_client import Tls
from devicehost_client.ctl.command import UsageError
from devicehost_client.ctl.credentials import credentials


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """An authority, a certificate of its own and its key, and another key."""
    ca = trustme.CA()
    ours, other = ca.issue_cert("me"), ca.issue_cert("you")
    result = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "other", "text")}
    ca.cert_pem.write_to_path(result["ca"])
    ours.cert_chain_pems[0].write_to_path(result["cert"])
    ours.private_key_pem.write_to_path(result["key"])
    other.private_key_pem.write_to_path(result["other"])
    result["text"].write_text("hello\n")
    result["none"] = tmp_path / "none.pem"
    return result


def options(ca: Path | None, cert: Path | None, key: Path | None) -> argparse.Namespace:
    return argparse.Namespace(tls_ca=ca, tls_cert=cert, tls_key=key)


def test_nothing_given_is_no_tls() -> None:
    assert credentials(options(None, None, None)) is None


def test_all_three_are_tls(files: dict[str, Path]) -> None:
    given = options(files["ca"], files["cert"], files["key"])
    assert credentials(given) == Tls(files["ca"], files["cert"], files["key"])


def test_a_part_of_them_names_what_is_missing(files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="TLS needs --tls-cert, --tls-key as well; allowed: all"):
        credentials(options(files["ca"], None, None))


@pytest.mark.parametrize(
    ("ca", "cert", "key", "why"),
    [
        ("none", "cert", "key", "argument --tls-ca: can't read .*none.pem: No such file"),
        ("ca", "none", "key", "argument --tls-cert: can't read .*none.pem: No such file"),
        ("ca", "cert", "none", "argument --tls-key: can't read .*none.pem: No such file"),
        ("text", "cert", "key", "argument --tls-ca: .*text.pem has no certificate"),
        ("ca", "text", "key", "argument --tls-cert: .*text.pem and .* are not a certificate"),
        ("ca", "cert", "text", "argument --tls-cert: .* and --tls-key .*text.pem are not"),
        ("ca", "cert", "other", "argument --tls-cert: .* and --tls-key .*other.pem are not"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(
    files: dict[str, Path], ca: str, cert: str, key: str, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        credentials(options(files[ca], files[cert], files[key]))
