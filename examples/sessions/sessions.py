"""What is this visitor after, right now? Sessions out of a stream of clicks, for a page that adapts itself.

python sessions.py       replays the day and follows one visitor: README.md shows what it prints
"""

import tempfile
from pathlib import Path

from headrace import Entity, Event, EventTime, FeatureView, FileSource, OfflineLog, derived, run, training_set
from headrace.features import Session
from headrace.features.functions import where

HERE = Path(__file__).parent


class Click(Event):
    visitor: str
    category: str
    item: str
    action: str
    at: EventTime


clicks = FileSource(HERE / "clicks.jsonl", Click, lateness="10s")
visit = Session("30m")  # as long as no half hour passes without a click


class Visit(FeatureView, source=clicks, entity=Entity("visitor", key="visitor"), ttl="1d"):
    clicks = Click.count(over=visit)
    in_cart = Click.where(Click.action == "cart").count(over=visit)
    bought = Click.where(Click.action == "buy").count(over=visit)
    interests = Click.category.top_k(2, over=visit)
    seen = Click.item.last_n(3, over=visit)
    clicks_1d = Click.count(last="1d")
    mood = derived(where(bought > 0, "done", where(in_cart > 0, "about to buy", where(clicks > 2, "looking", "new"))))


def main(data: Path) -> None:
    run([Visit], data)
    print("v-100 in the evening, as a page that is built at these instants is told:")
    times = ["19:00", "19:03", "19:05", "19:34", "19:36", "19:52", "19:58", "20:01", "20:31"]
    spine = [{"visitor": "v-100", "event_timestamp": f"2026-03-02T{time}:00Z"} for time in times]
    rows = training_set(spine, Visit, log=OfflineLog(data / "log")).to_pylist()
    for time, row in zip(times, rows, strict=True):
        interests = " and ".join(name for name, _ in row["interests"] or ())
        seen = ", ".join(row["seen"] or ())
        counts = f"{row['clicks']} clicks of {row['clicks_1d']}"
        print(f"  {time}  {counts}  {row['mood']:<12}  {interests:<17} {seen}".rstrip())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
