"""FILE TRANSACTIONS: so many of ten rows each, each of which is on the disk before the next."""

import os
import sqlite3
import sys

path, transactions = sys.argv[1], int(sys.argv[2])
connection = sqlite3.connect(path)
connection.execute("pragma synchronous = full")
connection.execute("create table t (id integer primary key, name text, value real)")
for transaction in range(transactions):
    with connection:
        rows = [(transaction * 10 + i, f"name {i}", i / 7) for i in range(10)]
        connection.executemany("insert into t values (?, ?, ?)", rows)
connection.close()
os.unlink(path)
