"""`headrace serve` with a feature log: every answer of every worker is in it, whole, with the request's id."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers.fixtures import RedisAddress
from tests.serving.compat.serving import Address
from tests.serving.live.process import LookupServer
from tests.serving.live.rows import expected, request_of
from tests.serving.live.views import checks

from headrace.serving import read_feature_log


def test_what_workers_answered_is_in_the_log(
    redis_server: RedisAddress, new_server: Callable[..., LookupServer], tmp_path: Path
) -> None:
    place = tmp_path / "served"
    server = new_server(redis_server.url, workers=2, settings={"feature_log": str(place)})
    address = Address(server.port)
    questions = {f"t{number:02d}": [number, number + 1, 5_000 + number] for number in range(30)}
    for trace, numbers in questions.items():
        assert address.ask(request_of(numbers), X_Request_Id=trace).status == 200
    server.stop()
    found: dict[str, list[dict[str, Any]]] = {}
    for each in read_feature_log(place, checks).to_pylist():
        found.setdefault(each["trace"], []).append(each)
    assert found.keys() == questions.keys()
    for trace, numbers in questions.items():
        answer = expected(numbers)
        for at, row in enumerate(found[trace]):
            said = row["keys"] | row["features"]
            assert said == {name: values[at] for name, values in answer.items()}
            assert row["request"] == {"amount": numbers[at] + 0.25}
        assert [row["statuses"]["visits"] for row in found[trace]] == ["PRESENT", "PRESENT", "NOT_FOUND"]
