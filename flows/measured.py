"""What `python -m benchmarks.costs` has measured; it prints this file."""

from headrace.flows.sizing import Cost, Costs

MEASURED = Costs(
    event_us=Cost(1.475, 0.3228),
    write_us=Cost(0.9367, 0.2558),
    row_us=Cost(3.551, 0.4161),
    state=Cost(3237, 124.7),
    state_full=Cost(4.339e04, 1669),
    snapshot=Cost(116.6, 11.59),
    snapshot_full=Cost(2250, 136.8),
    online_feast=Cost(208.6, 17.27),
    online_packed=Cost(181.2, 7.98),
    log_row=Cost(6.273, 3.64),
    log_rows=1.42,
    process=3.33e08,
    said="2 cores, Linux, Python 3.11.7, 2026-11-23",
)
