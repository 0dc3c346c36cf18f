"""Curves over time as SVG, one panel below the other; drawn by hand, so that nothing has to be installed for it."""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, PANEL_HEIGHT, LEFT, CURVES_WIDTH = 860, 110, 70, 620
COLOURS = ("#0969da", "#2da44e", "#bf8700", "#8250df", "#cf222e")
INK, GREY = "#24292f", "#d0d7de"

Points = Sequence[tuple[float, float]]


def panels(curves: Mapping[str, Mapping[str, Points]]) -> str:
    """Title → name → (minutes, value), each panel with a scale of its own that begins at 0."""
    parts = [
        _panel(title, named, 24 + number * (PANEL_HEIGHT + 44)) for number, (title, named) in enumerate(curves.items())
    ]
    height = 24 + len(curves) * (PANEL_HEIGHT + 44)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>', *parts, "</svg>", ""])


def _panel(title: str, curves: Mapping[str, Points], top: float) -> str:
    points = [point for curve in curves.values() for point in curve]
    last, highest = (max((point[axis] for point in points), default=1.0) * 1.05 or 1.0 for axis in (0, 1))
    bottom = top + PANEL_HEIGHT
    parts = [_text(LEFT, top - 6, title)]
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * PANEL_HEIGHT
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + CURVES_WIDTH}" y1="{y:.0f}" y2="{y:.0f}" stroke="{GREY}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{share * highest:.4g}", anchor="end"))
    parts += [
        _text(LEFT + share * CURVES_WIDTH, bottom + 15, f"{share * last:.0f} min", anchor="middle")
        for share in (0.0, 0.5, 1.0)
    ]
    for place, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[place % len(COLOURS)]
        line = " ".join(
            f"{LEFT + minutes / last * CURVES_WIDTH:.1f},{bottom - value / highest * PANEL_HEIGHT:.1f}"
            for minutes, value in curve
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        parts.append(_text(LEFT + CURVES_WIDTH + 14, top + 12 + 16 * place, name, colour=colour))
    return "\n".join(parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="11">{escape(text)}</text>'
