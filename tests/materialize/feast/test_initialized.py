"""The repository that `feast init` makes, as a newcomer to Feast has it: maps, JSON, structs, a pushed view and views
on demand. One line makes Headrace's engine materialize it, and nothing else changes."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.materialize.feast.engine_repo import OURS, hashes
from tests.servers.fixtures import RedisAddress

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from click.testing import CliRunner
    from feast import FeatureStore
    from feast.cli.cli import cli
    from feast.protos.feast.types.Value_pb2 import Value

DRIVERS = [{"driver_id": driver, "val_to_add": 1, "val_to_add_2": 2} for driver in (1001, 1002, 1005, 9)]
VIEWS = ("driver_hourly_stats", "driver_hourly_stats_fresh")
FEATURES = ("conv_rate", "acc_rate", "avg_daily_trips", "driver_metadata", "driver_config", "driver_profile")


def feast(*said: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ran = CliRunner().invoke(cli, list(said))
    assert ran.exit_code == 0, (ran.output, ran.exception)


def decoded(rows: dict[bytes, dict[bytes, bytes]]) -> dict[bytes, dict[bytes, Any]]:
    """Values as messages: Protobuf leaves open in which order it writes a map's entries."""
    return {
        key: {field: said if field.startswith(b"_ts:") else Value.FromString(said) for field, said in row.items()}
        for key, row in rows.items()
    }


def test_one_line_of_its_yaml_is_all_that_changes(
    tmp_path: Path, redis_server: RedisAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    feast("init", "mine", "-t", "local")
    repo = tmp_path / "mine" / "feature_repo"
    monkeypatch.syspath_prepend(str(repo))  # where Feast puts it for good
    said = yaml.safe_load((repo / "feature_store.yaml").read_text())
    said["online_store"] = {
        "type": "redis",
        "connection_string": f"127.0.0.1:{redis_server.port},db={redis_server.url.rpartition('/')[2]}",
    }
    now = datetime.now(UTC)

    def left() -> tuple[Any, Any]:
        """What Redis holds, and what Feast's reader says, on demand included."""
        (repo / "feature_store.yaml").write_text(yaml.safe_dump(said))
        feast("--chdir", str(repo), "materialize", (now - timedelta(days=30)).isoformat(), now.isoformat())
        found = decoded(hashes(redis_server))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = FeatureStore(repo_path=str(repo))
            asked = [f"{view}:{feature}" for view in VIEWS for feature in FEATURES]
            asked += ["transformed_conv_rate:conv_rate_plus_val1"]
            answer = store.get_online_features(features=asked, entity_rows=DRIVERS, full_feature_names=True).to_dict()
        with redis_server.client() as client:
            client.flushdb()
        return found, answer

    (repo / "feature_store.yaml").write_text(yaml.safe_dump(said))
    feast("--chdir", str(repo), "apply")
    theirs = left()
    said["batch_engine"] = {"type": OURS}
    ours = left()
    assert len(ours[0]) == 5
    assert {len(row) for row in ours[0].values()} == {len(VIEWS) * (len(FEATURES) + 1)}
    assert ours == theirs
    assert ours[1]["driver_hourly_stats__conv_rate"][3] is None
