"""Secrets stand in the environment only, and what is printed holds none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.ops.configuration import configure
from headrace.ops.errors import ConfigurationError
from headrace.ops.secrets import expand, forget, is_secret_name, redact, redacted, refuse_secret

PLANTED = "hunter2-PLANTED"


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        (f'[kafka]\nsasl.password = "{PLANTED}"', '"${SASL_PASSWORD}"'),
        (f'[kafka]\nssl.key.pem = "{PLANTED}"', '"${SSL_KEY_PEM}"'),
        (f'[kafka]\nssl_key = "{PLANTED}"', '"${SSL_KEY}"'),
        (f'[kafka]\nsasl.oauthbearer.client.secret = "{PLANTED}"', '"${SASL_OAUTHBEARER_CLIENT_SECRET}"'),
        (f'[kafka]\nsasl.password = "${{HALF}}{PLANTED}"', '"${SASL_PASSWORD}"'),
        (f'[online]\nurl = "redis://:{PLANTED}@cache:6379/0"', '"redis://:${URL_PASSWORD}@cache:6379/0"'),
        (f'[online]\nurl = "redis+sentinel://u:{PLANTED}@a:1,b:2/main/0"', "u:${URL_PASSWORD}@a:1,b:2/main/0"),
    ],
)
def test_a_secret_in_the_file_is_refused_with_the_way_out(tmp_path: Path, line: str, way_out: str) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text(line)
    with pytest.raises(ConfigurationError) as refused:
        configure(file, environment={"HALF": "half"})
    assert "in clear text. Put it into the environment" in str(refused.value)
    assert way_out in str(refused.value)
    assert PLANTED not in str(refused.value)


def test_a_password_on_the_command_line_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="option --online: the URL holds a password in clear text") as refused:
        configure(None, environment={}, options={"online": {"url": f"redis://:{PLANTED}@cache"}})
    assert PLANTED not in str(refused.value)


def test_references_alone_are_fine() -> None:
    refuse_secret("sasl.password", "${A}${B}", "here")
    refuse_secret("url", "redis://user:${A}@cache:6379", "here")
    refuse_secret("url", "redis://cache:6379", "here")
    refuse_secret("ssl.key.location", "/run/secrets/key", "here")


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(ConfigurationError, match="here: the variable NOWHERE is not set"):
        expand("${NOWHERE}", {}, "here")
    with pytest.raises(ConfigurationError, match=r"'\$\{not a name\}' names no variable"):
        expand("${not a name}", {}, "here")


def test_what_was_expanded_is_never_printed() -> None:
    environment = {"A": PLANTED, "B": "p@ss/w:rd"}
    assert expand("${A}", environment, "here", secret=True) == PLANTED
    url = expand("redis://:${B}@cache:6379/0", environment, "here")
    assert url == "redis://:p%40ss%2Fw%3Ard@cache:6379/0"
    said = redact(f"refused {PLANTED} and p@ss/w:rd at {url}")
    assert said == "refused *** and *** at redis://:***@cache:6379/0"


def test_what_looks_like_a_secret_is_hidden_though_nobody_told() -> None:
    for text in (
        f"redis://:{PLANTED}@cache:6379",
        f"amqp://user:{PLANTED}@host/x and rediss://a:{PLANTED}@b",
        f"sasl.password={PLANTED}, other=1",
        f'{{"ssl.key.password": "{PLANTED}"}}',
        f"password = '{PLANTED}'",
    ):
        assert PLANTED not in redact(text)
    kept = "headrace.toml: [kafka] sasl.password: expected text, got a number at redis://cache:6379/0, key=7"
    assert redact(kept) == kept


def test_values_of_a_log_line_are_redacted_however_deep() -> None:
    fields = {
        "event": "x",
        "kafka": {"sasl.password": PLANTED, "group": "g"},
        "urls": [f"redis://:{PLANTED}@h"],
        "n": 1,
    }
    assert redacted(fields) == {
        "event": "x",
        "kafka": {"sasl.password": "***", "group": "g"},
        "urls": ["redis://:***@h"],
        "n": 1,
    }


def test_secret_names() -> None:
    secret = ("sasl.password", "ssl.keystore.password", "ssl.key.pem", "basic.auth.user.info", "client_secret", "token")
    assert all(is_secret_name(name) for name in secret)
    assert not any(is_secret_name(name) for name in ("sasl.username", "ssl.key.location", "group.id", "url", "key"))
