"""Medians over rounds, ratios, and the Markdown table."""

from __future__ import annotations

import statistics

Results = dict[str, dict[str, list[dict[str, float]]]]
"""Case → way → one {"median", "best"} a round."""

REFERENCE, OURS, NATIVE = "gVisor systrap", "ours", "native"
UNITS = {"memory": (2**20, "MiB"), "CPU of": (1e6, "ms/s"), "wake-ups": (1.0, "1/s")}


def unit(case: str) -> tuple[float, str]:
    """Divisor and name of the unit in which a case is shown; ns otherwise."""
    for start, found in UNITS.items():
        if case.startswith(start) and case != "memory bandwidth 32M":
            return found
    return 1.0, "ns"


def medians(results: Results) -> dict[str, dict[str, float]]:
    """Case → way → the median of the rounds' medians."""
    return {
        case: {way: statistics.median(r["median"] for r in rounds) for way, rounds in ways.items()}
        for case, ways in results.items()
    }


def human(value: float, name: str) -> str:
    """With three digits, and the unit that fits."""
    if name != "ns":
        return f"{value:.1f} {name}"
    for limit, text in ((1e3, "ns"), (1e6, "µs"), (1e9, "ms"), (1e12, "s")):
        if value < limit:
            scaled = value / limit * 1e3
            digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
            return f"{scaled:.{digits}f} {text}"
    return f"{value / 1e9:.0f} s"


def ratio(ways: dict[str, float], to: str) -> float | None:
    """Ours to another; None where one of them is not there."""
    ours, other = ways.get(OURS), ways.get(to)
    return ours / other if ours is not None and other else None


def table(results: Results, names: list[str]) -> str:
    """One row a case, a column a way, then ours to gVisor and to native."""
    lines = [f"| | {' | '.join(names)} | ours / gVisor | ours / native |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for case, ways in medians(results).items():
        scale, name = unit(case)
        cells = [human(ways[n] / scale, name) if n in ways else "" for n in names]
        ratios = [ratio(ways, REFERENCE), ratio(ways, NATIVE)]
        shown = ["" if r is None else f"{r:.2f}" for r in ratios]
        lines.append(f"| {case} | {' | '.join(cells)} | {' | '.join(shown)} |")
    return "\n".join(lines)


def markdown(
    about: dict[str, str], sections: dict[str, Results], names: list[str], charts: dict[str, str]
) -> str:
    """The whole page of results; `charts`: section → file name."""
    parts = [
        "# Results of the benchmarks",
        "Written by `python -m benchmarks`; medians of the rounds, lower is better.",
        "\n".join(f"- {key}: {value}" for key, value in about.items()),
    ]
    for section, results in sections.items():
        chart = f"![ours to gVisor's, {section}]({charts[section]})"
        parts += [f"## {section}", table(results, names), chart]
    return "\n\n".join(parts) + "\n"
