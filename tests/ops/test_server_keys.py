"""Keys come from the environment or a file, are long enough and never told; a certificate is checked at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.ops.errors import ConfigurationError
from headrace.ops.secrets import forget, redact
from headrace.ops.server_keys import accepted_keys, check_reach, check_tls
from headrace.ops.settings import ServeSection

LONG = "0123456789abcdef"


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    forget()


def test_keys_of_the_variable_and_of_the_file_are_accepted_and_never_told(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# one a line\n\n  {LONG}-file \n")
    found = accepted_keys(ServeSection(api_keys=f"{LONG}-1, {LONG}-2\n{LONG}-3", api_keys_file=str(tmp_path / "keys")))
    assert found == {f"{LONG}-{each}" for each in ("1", "2", "3", "file")}
    assert LONG not in redact(f"somebody shows {LONG}-2 and {LONG}-file")
    assert accepted_keys(ServeSection()) == frozenset()


@pytest.mark.parametrize(
    ("keys", "says"),
    [("short", "has 5 signs"), (f"{LONG}é", "no header may have"), (f"{LONG},", "no header may have")],
)
def test_a_key_that_cannot_be_one_is_refused_without_telling_it(keys: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refused:
        accepted_keys(ServeSection(api_keys=keys))
    assert keys not in str(refused.value)


def test_a_file_without_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n")
    with pytest.raises(ConfigurationError, match="holds no key"):
        accepted_keys(ServeSection(api_keys_file=str(tmp_path / "keys")))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        accepted_keys(ServeSection(api_keys_file=str(tmp_path / "nothing")))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    assert check_reach(ServeSection(host=host), frozenset()) is None


def test_beyond_it_a_key_is_needed_or_a_word_that_none_is_meant() -> None:
    with pytest.raises(ConfigurationError, match="and no API key is set: anybody could read"):
        check_reach(ServeSection(host="0.0.0.0"), frozenset())
    doubts = [
        check_reach(ServeSection(host="0.0.0.0", without_keys=True), frozenset()),
        check_reach(ServeSection(host="0.0.0.0"), frozenset({LONG})),
        check_reach(ServeSection(host="0.0.0.0", tls_cert="cert.pem"), frozenset({LONG})),
    ]
    assert ["" if each is None else each.says for each in doubts] == [
        "other machines reach 0.0.0.0, and nobody is asked for a key",
        "keys cross the network in clear text",
        "",
    ]


def test_files_that_are_no_certificate_are_refused(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("nothing of the kind\n")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    with pytest.raises(ConfigurationError, match="Expected a certificate chain and its private key"):
        check_tls(ServeSection(tls_cert=cert, tls_key=key))
    with pytest.raises(ConfigurationError, match="tls_key is given without tls_cert"):
        check_tls(ServeSection(tls_key=key))
    assert not check_tls(ServeSection())
