"""Plots as SVG: each promise as a bar against its target, and the latencies of calls as curves.

Drawn by hand, so that nothing has to be installed for it, and so that the files are small and differ only in numbers.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

from bench.load.quantiles import QUANTILES
from bench.report import Row

WIDTH = 860
INK, GREY, KEPT, MISSED, FLOOR = "#24292f", "#8c959f", "#2da44e", "#cf222e", "#bf8700"
_BAR, _LEFT, _SCALE = 22, 300, 330


def promises(rows: Sequence[Row]) -> str:
    """One bar for each promise: how much of what is allowed is used. The line is the target."""
    shown = [row for row in rows if row.limit is not None]
    parts = []
    for number, row in enumerate(shown):
        y = 44 + number * (_BAR + 8)
        value = row.figure if row.ratio is None else row.ratio
        share = value / row.limit if row.limit else 0.0
        length = min(share, 1.2) * _SCALE
        colour = MISSED if row.verdict == "MISSED" else KEPT
        sign = row.unit if row.ratio is None else "×"
        label = f"{row.case}: {row.what}"
        parts += [
            _text(_LEFT - 10, y + 15, label, anchor="end"),
            f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>',
            _text(_LEFT + length + 6, y + 15, f"{value:.2f} of {row.limit:g} {sign}", colour=INK),
        ]
    height = 56 + len(shown) * (_BAR + 8)
    x = _LEFT + _SCALE
    line = f'<line x1="{x}" x2="{x}" y1="34" y2="{height - 12}" stroke="{INK}" stroke-dasharray="4 3"/>'
    return _svg(height, [_text(x, 26, "target", anchor="middle"), *parts, line])


def latencies(curves: Mapping[str, Sequence[float]], cases: Sequence[tuple[str, str]]) -> str:
    """Latency (ms, logarithmic) over the share of calls that took at most so long, gateway and floor of each case."""
    panels = [(case, title) for case, title in cases if f"{case} gateway" in curves]
    parts: list[str] = []
    for number, (case, title) in enumerate(panels):
        pair = {target: curves[f"{case} {target}"] for target in ("floor", "gateway")}
        parts += _panel(30 + (number % 2) * 425, 30 + (number // 2) * 235, title, pair)
    return _svg(30 + math.ceil(len(panels) / 2) * 235, parts)


def _panel(left: float, top: float, title: str, curves: Mapping[str, Sequence[float]]) -> list[str]:
    width, height = 350.0, 165.0
    values = [value for curve in curves.values() for value in curve]
    low, high = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05

    def y_of(ms: float) -> float:
        return top + 15 + height - (math.log10(ms) - low) / (high - low) * height

    parts = [_text(left + 20, top + 6, title)]
    for ms in _ticks(10**low, 10**high):
        y = y_of(ms)
        parts.append(f'<line x1="{left + 20}" x2="{left + 20 + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(_text(left + 15, y + 4, f"{ms:g}", anchor="end", colour=GREY, size=10))
    for share in (0.0, 0.25, 0.5, 0.75, 0.99):
        label = f"{share:.0%}"
        parts.append(_text(left + 20 + share * width, top + height + 30, label, anchor="middle", colour=GREY, size=10))
    for place, (target, curve) in enumerate(curves.items()):
        colour = KEPT if target == "gateway" else FLOOR
        points = " ".join(
            f"{left + 20 + share * width:.1f},{y_of(ms):.1f}" for share, ms in zip(QUANTILES, curve, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(_text(left + 30, top + 32 + 15 * place, f"{target}, ms", colour=colour))
    return parts


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [one * 10.0**decade for decade in decades for one in (1, 2, 5) if low <= one * 10.0**decade <= high]


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, size: int = 12) -> str:
    style = f'text-anchor="{anchor}" fill="{colour}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>', *parts, "</svg>", ""])
