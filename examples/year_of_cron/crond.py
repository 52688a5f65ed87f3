"""A cron that sleeps until its next job, as systemd's timers do: python3 crond.py TABLE."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def times(field: str, first: int, last: int) -> set[int]:
    """What `*`, `*/5`, `1-5` and `1,3` mean."""
    found: set[int] = set()
    for part in field.split(","):
        values, _, step = part.partition("/")
        low, _, high = (f"{first}-{last}" if values == "*" else values).partition("-")
        found.update(range(int(low), int(high or low) + 1, int(step or 1)))
    return found


class Job:
    """A line of the table."""

    def __init__(self, line: str) -> None:
        *fields, self.command = line.split(None, 5)
        spans = zip(fields, RANGES, strict=True)
        self.minutes, self.hours, self.days, self.months, self.weekdays = (
            times(field, *span) for field, span in spans
        )

    def after(self, moment: datetime) -> datetime:
        """The next time that it is to run."""
        moment = moment.replace(second=0, microsecond=0) + MINUTE
        while not self._on(moment):
            moment = moment.replace(hour=0, minute=0) + DAY
        while moment.hour not in self.hours or moment.minute not in self.minutes:
            moment += MINUTE
            if not self._on(moment):
                return self.after(moment - MINUTE)
        return moment

    def _on(self, day: datetime) -> bool:
        weekday = (day.weekday() + 1) % 7
        return day.day in self.days and day.month in self.months and weekday in self.weekdays


def now() -> datetime:
    """In UTC."""
    return datetime.now(UTC)


def main(path: str) -> None:
    """For ever."""
    with open(path) as table:
        jobs = [Job(line) for line in table if line.strip()]
    due = [(job.after(now()), job) for job in jobs]
    while True:
        due.sort(key=lambda each: each[0])
        at, job = due.pop(0)
        while (left := (at - now()).total_seconds()) > 0:
            time.sleep(left)
        subprocess.run(job.command, shell=True, check=False)
        due.append((job.after(at), job))


if __name__ == "__main__":
    main(sys.argv[1])
