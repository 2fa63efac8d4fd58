"""Recounts a CSV file of events by means that share nothing with the program: Python's csv, gzip and sqlite3.

Usage: recount.py FILE.csv.gz   with the columns event_id, item_id, ts_ms, extra
Prints one line for each point that is not zero: entity TAB step in s TAB start in Unix s TAB views.
"""

import csv
import gzip
import sqlite3
import sys

db = sqlite3.connect(":memory:")
db.execute("CREATE TABLE events (id TEXT PRIMARY KEY, video TEXT, space TEXT, ts INTEGER)")
with gzip.open(sys.argv[1], "rt", encoding="utf-8", newline="") as file:
    rows = ((r["event_id"], r["item_id"], r["extra"], int(r["ts_ms"])) for r in csv.DictReader(file))
    db.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?)", rows)

for step in (60, 3600, 86400):
    for entity, column in (("video", "video"), ("space", "space"), ("site", "'all'")):
        points = db.execute(
            f"SELECT {column}, ts / 1000 / {step} * {step} AS start, count(*) FROM events GROUP BY 1, 2 ORDER BY 1, 2"
        )
        for name, start, views in points:
            print(entity, name, step, start, views, sep="\t")
