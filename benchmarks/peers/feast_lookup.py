"""Feast's `get_online_features` in process, run by lookup.py with the interpreter of its own environment.

    .peers/feast/bin/python feast_lookup.py REPOSITORY

Reads a line {"references": [...], "users": [[...], ...]}, makes one call for each list of users, and writes the seconds
that each took as a line; and so on until its input ends.
"""

import json
import sys
import time

from feast import FeatureStore


def main(repository: str) -> None:
    store = FeatureStore(repo_path=repository)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        names = [each.partition(":")[2] for each in asked["references"]]
        seconds = []
        for users in asked["users"]:
            began = time.perf_counter()
            found = store.get_online_features(asked["references"], [{"user_id": user} for user in users]).to_dict()
            seconds.append(time.perf_counter() - began)
            if any(len(found[name]) != len(users) or None in found[name] for name in names):
                raise SystemExit(f"feast_lookup: Feast does not find the rows of {users}: {found}")
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
