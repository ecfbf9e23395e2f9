"""Who is trying to get in? Brute-force detection over a stream of sign-ins.

python logins.py         replays the hour and tells the alarms: README.md shows what it prints
"""

import tempfile
from pathlib import Path

from headrace import Entity, Event, EventTime, FeatureView, FileSource, OfflineLog, derived, run
from headrace.features.functions import where

HERE = Path(__file__).parent


class SignIn(Event):
    address: str
    account: str
    ok: bool
    at: EventTime


signins = FileSource(HERE / "signins.csv", SignIn, lateness="5s")
failed = SignIn.where(~SignIn.ok)


class AddressTries(FeatureView, source=signins, entity=Entity("address", key="address")):
    """What one address does."""

    failed_5m = failed.count(last="5m", exact=True)
    accounts_10m = failed.account.distinct(last="10m", exact=True)
    alarm = derived(where(accounts_10m >= 8, "spraying", where(failed_5m >= 10, "guessing", "")))


class AccountTries(FeatureView, source=signins, entity=Entity("account", key="account")):
    """What is done to one account, from wherever."""

    failed_5m = failed.count(last="5m", exact=True)
    addresses_5m = failed.address.distinct(last="5m", exact=True)
    got_in_5m = SignIn.where(SignIn.ok).count(last="5m", exact=True)
    alarm = derived(
        where((failed_5m >= 10) & (got_in_5m > 0), "broken into", where(addresses_5m >= 10, "stuffing", ""))
    )


def main(data: Path) -> None:
    summary = run([AddressTries, AccountTries], data)
    print(f"{summary.taken} sign-ins read")
    log = OfflineLog(data / "log")
    for view, who in ((AddressTries, "address"), (AccountTries, "account")):
        rows = log.scan(view).to_pandas()
        print(f"\nAlarms by {who}:")
        for (entity, alarm), found in rows[rows["alarm"] != ""].groupby([who, "alarm"], sort=False):
            began = found["event_timestamp"].iloc[0]
            print(f"  {began:%H:%M:%S}  {entity:<14} {alarm:<11}  up to {found['failed_5m'].max()} failed in 5 minutes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
