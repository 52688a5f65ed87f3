"""2,000 rows in 40 transactions."""

import os
import sqlite3

PATH = "/tmp/bench.db"
connection = sqlite3.connect(PATH)
connection.execute("create table t (id integer primary key, name text, value real)")
for batch in range(40):
    with connection:
        rows = [(batch * 50 + i, f"name {i}", i / 7) for i in range(50)]
        connection.executemany("insert into t values (?, ?, ?)", rows)
connection.close()
os.unlink(PATH)
