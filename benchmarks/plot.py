"""A bar chart as SVG: ours to gVisor's runsc, logarithmic; left of the line is faster."""

from __future__ import annotations

from html import escape
from math import log2

from benchmarks.report import REFERENCE, Results, medians, ratio

ROW, LEFT, WIDTH, SPAN = 18, 200, 480, 4
"""Pixels; the scale reaches from 2**-SPAN to 2**SPAN."""


def chart(title: str, results: Results) -> str:
    """One bar a case, from ratio 1 to its ratio."""
    bars = [(case, r) for case, ways in medians(results).items() if (r := ratio(ways, REFERENCE))]
    height = ROW * len(bars) + 50
    middle = LEFT + WIDTH / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 60}" height="{height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="16" font-size="13">{escape(title)}</text>',
    ]
    for power in range(-SPAN, SPAN + 1):
        x = middle + power * WIDTH / 2 / SPAN
        label = f"{2**power}" if power >= 0 else f"1/{2**-power}"
        colour = "#333" if power == 0 else "#ddd"
        parts.append(f'<line x1="{x}" x2="{x}" y1="38" y2="{height - 6}" stroke="{colour}"/>')
        parts.append(f'<text x="{x}" y="33" text-anchor="middle" fill="#555">{label}</text>')
    for index, (case, value) in enumerate(bars):
        y = 42 + index * ROW
        end = middle + max(-SPAN, min(SPAN, log2(value))) * WIDTH / 2 / SPAN
        colour = "#2a7" if value <= 1 else "#c63"
        parts.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(case)}</text>')
        parts.append(
            f'<rect x="{min(middle, end):.1f}" y="{y + 2}" width="{abs(end - middle):.1f}" '
            f'height="{ROW - 6}" fill="{colour}"/>'
        )
        parts.append(f'<text x="{LEFT + WIDTH + 8}" y="{y + 11}">{value:.2f}</text>')
    return "\n".join([*parts, "</svg>", ""])
