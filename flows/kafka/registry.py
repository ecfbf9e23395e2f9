"""Schema Registry: the schemas that producers wrote their messages with, by the id that each message begins with.

    byte 0      0
    bytes 1-4   id of the schema, most significant first
    then        Avro: the datum; Protobuf: which message of the schema it is, then the message

Two questions are asked, `GET /schemas/ids/ID` and, for schemas that refer to others, `GET /subjects/S/versions/V`, so
the standard library does (docs/decisions/0010-kafka-decoding.md). The same for Confluent's registry, Redpanda's,
Karapace and Apicurio (`/apis/ccompat/v7`). Answers about an id never change and are kept for good.
"""

import base64
import http.client
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.flows.kafka.errors import AccessError, UnreachableClusterError
from headrace.flows.kafka.secrets import HIDDEN, without_secrets

MAGIC = 0
HEADER = 5

UNKNOWN_FOR_S = 30.0
"""An id that the registry does not know is asked for again after this long."""

_KNOWN = {
    *("url", "basic.auth.user.info", "bearer.auth.token", "ssl.ca.location", "ssl.certificate.location"),
    *("ssl.key.location", "ssl.key.password", "timeout"),
}


class UnreachableRegistryError(UnreachableClusterError):
    """The Schema Registry does not answer. No message was taken; decode the same ones again later."""


@dataclass(frozen=True)
class RegisteredSchema:
    """A schema as the registry has it: its text, kind ("AVRO", "PROTOBUF") and the schemas it refers to, by name."""

    id: int
    text: str
    kind: str
    references: Mapping[str, "RegisteredSchema"]


class Registry:
    """A client of one registry.

    config: `url` (several with commas), `basic.auth.user.info` ("user:password"), `bearer.auth.token`,
        `ssl.ca.location`, `ssl.certificate.location`, `ssl.key.location`, `ssl.key.password`, `timeout` (seconds).
    pauses_s: between tries while the registry does not answer.

    Raises:
        DefinitionError: a setting that there is not, or a certificate that cannot be read.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        pauses_s: Sequence[float] = (0.1, 0.3, 0.6),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        unknown = sorted(set(config) - _KNOWN)
        if unknown:
            raise DefinitionError(
                f"Schema Registry: unknown settings {', '.join(unknown)}. There are: {', '.join(sorted(_KNOWN))}."
            )
        self._config = dict(config)
        self._urls = [_bare(url) for url in str(config["url"]).split(",")]
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json", **_login(config)}
        self._context = _context(config) if any(url.startswith("https") for url in self._urls) else None
        self._timeout = float(config.get("timeout", 10))
        self._pauses = tuple(pauses_s)
        self._clock = clock
        self._schemas: dict[int, RegisteredSchema] = {}
        self._unknown: dict[int, float] = {}

    def schema(self, id: int) -> RegisteredSchema | None:
        """The schema of an id, None if the registry has none.

        Raises:
            UnreachableRegistryError: nobody answers after some tries. AccessError: it wants other credentials.
        """
        found = self._schemas.get(id)
        if found is not None:
            return found
        if self._clock() < self._unknown.get(id, 0.0):
            return None
        answer = self._get(f"/schemas/ids/{id}")
        if answer is None:
            self._unknown[id] = self._clock() + UNKNOWN_FOR_S
            return None
        self._schemas[id] = self._registered(id, answer)
        return self._schemas[id]

    def _registered(self, id: int, answer: Mapping[str, Any]) -> RegisteredSchema:
        references = {}
        for each in answer.get("references") or ():
            subject = urllib.parse.quote(each["subject"], safe="")
            referred = self._get(f"/subjects/{subject}/versions/{each['version']}")
            if referred is not None:
                references[each["name"]] = self._registered(int(referred.get("id", -1)), referred)
        return RegisteredSchema(id, answer["schema"], answer.get("schemaType", "AVRO"), references)

    def _get(self, path: str) -> Any:
        """The answer, None for 404."""
        reasons: list[str] = []
        for pause in (*self._pauses, None):
            for url in self._urls:
                request = urllib.request.Request(url + path, headers=self._headers)
                try:
                    with urllib.request.urlopen(request, timeout=self._timeout, context=self._context) as response:
                        return json.load(response)
                except urllib.error.HTTPError as error:
                    with error:
                        if error.code == 404:
                            return None
                        if error.code in (401, 403):
                            raise self._refused(error.code) from None
                        reasons.append(f"{url}: HTTP {error.code} {error.reason}")
                except (OSError, http.client.HTTPException, ValueError) as error:
                    reasons.append(f"{url}: {getattr(error, 'reason', error)}")
            if pause is not None:
                time.sleep(pause)
        told = without_secrets("; ".join(dict.fromkeys(reasons)), self._config)
        raise UnreachableRegistryError(
            f"No answer from the Schema Registry: {told}. No message is lost: it is asked again. Check that it runs, "
            "that its URL is right and, for https, ssl_ca_location."
        )

    def _refused(self, status: int) -> AccessError:
        return AccessError(
            f"The Schema Registry at {', '.join(self._urls)} refuses this client (HTTP {status}). Check "
            "schema_registry_basic_auth_user_info='${NAME}' and the variable that it names ('user:password')."
        )

    def __repr__(self) -> str:
        return f"Registry({', '.join(self._urls)})"


def _bare(url: str) -> str:
    """A URL without user and password, which go into a header."""
    parts = urllib.parse.urlsplit(url.strip().rstrip("/"))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = url if "@" not in url else HIDDEN
        raise DefinitionError(f"Schema Registry: {shown!r} is no URL such as 'http://registry:8081'.")
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _login(config: Mapping[str, Any]) -> dict[str, str]:
    if "bearer.auth.token" in config:
        return {"Authorization": f"Bearer {config['bearer.auth.token']}"}
    user = config.get("basic.auth.user.info")
    if user is None:
        inside = urllib.parse.urlsplit(str(config["url"]).split(",")[0]).netloc.rpartition("@")[0]
        user = urllib.parse.unquote(inside) or None
    return {} if user is None else {"Authorization": f"Basic {base64.b64encode(str(user).encode()).decode()}"}


def _context(config: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.get("ssl.ca.location"))
        if "ssl.certificate.location" in config:
            context.load_cert_chain(
                config["ssl.certificate.location"], config.get("ssl.key.location"), config.get("ssl.key.password")
            )
    except (OSError, ssl.SSLError) as error:
        raise DefinitionError(f"Schema Registry: a certificate or key of it cannot be read: {error}.") from None
    return context


def schema_id(payload: bytes) -> int | str:
    """The schema id that a message of the wire format begins with, or what is wrong with it."""
    if len(payload) < HEADER:
        return f"{len(payload)} bytes are too few for the registry's wire format, which begins with five of its own"
    if payload[0] != MAGIC:
        like = "; it looks like JSON" if payload[:1] in b'{["' else ""
        return f"the first byte is 0x{payload[0]:02x}, and 0x00 in the registry's wire format{like}"
    return int.from_bytes(payload[1:HEADER], "big")
