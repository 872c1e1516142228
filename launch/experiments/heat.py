"""Heat maps as SVG text: how much of something each expert of each MoE block takes."""

from experiments.chart import CHARACTER, INK, MUTED, drawing, text

# White at nothing, then one blue that darkens evenly: order survives grey printing and any colour vision.
SCALE = ((0.0, (255, 255, 255)), (0.5, (198, 219, 239)), (1.0, (107, 174, 214)), (1.5, (33, 113, 181)), (2.0, (8, 48, 107)))
CELL = 22


def colour(value: float) -> str:
    """Of a multiple of an equal share; from 2 on the darkest."""
    value = min(max(value, 0.0), 2.0)
    for (a, low), (b, high) in zip(SCALE, SCALE[1:]):
        if value <= b:
            share = (value - a) / (b - a)
            return "#" + "".join(f"{round(x + share * (y - x)):02x}" for x, y in zip(low, high))
    raise AssertionError("unreachable: the scale ends where values do")


def cell(x: float, y: float, width: float, value: float) -> str:
    ink = INK if value < 1.2 else "#ffffff"
    number = text(x + width / 2, y + CELL / 2 + 4, f"{value:.2f}", "middle", 10, ink) if width >= 28 else ""
    paint = f'fill="{colour(value)}" stroke="#ffffff" stroke-width="0.6"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{CELL}" {paint}/>{number}'


def key(x: float, y: float, unit: str) -> list[str]:
    """What the colours mean."""
    body = [f'<rect x="{x + 6 * i}" y="{y}" width="6.3" height="10" fill="{colour(i / 20)}"/>' for i in range(41)]
    body.append(f'<rect x="{x}" y="{y}" width="246" height="10" fill="none" stroke="{MUTED}" stroke-width="0.6"/>')
    body += [text(x + 6 * 20 * mark + 3, y + 24, label, "middle", 11, MUTED) for mark, label in ((0, "0"), (1, "1"), (2, "2 and more"))]
    return body + [text(x + 300, y + 10, unit, size=11, colour=MUTED)]


def heat_map(title: str, groups: list[tuple[str, list[tuple[str, list[float]]]]], unit: str, rows_are: str) -> str:
    """`groups` are (name, rows), a row its label and a value an expert, numbered above, in multiples of an equal share."""
    longest = max(len(label) for _, rows in groups for label in (rows_are, *(label for label, _ in rows)))
    left = 24 + CHARACTER * longest  # of the cells
    width = max(760.0, left + 320 + CHARACTER * len(unit))
    body, y = [text(8, 18, title, size=13.5, weight="600")], 34
    for name, rows in groups:
        count = len(rows[0][1])
        size = min(44.0, (width - left - 60) / count)
        body.append(text(8, y + 11, name, weight="600"))
        body.append(text(left - 8, y + 28, rows_are, "end", 11, MUTED))
        every = 1 if size >= 18 else 4
        for expert in range(0, count, every):
            body.append(text(left + size * (expert + 0.5), y + 28, str(expert), "middle", 10, MUTED))
        body.append(text(left + size * count + 8, y + 28, "expert", size=11, colour=MUTED))
        y += 34
        for label, values in rows:
            body.append(text(left - 8, y + CELL / 2 + 4, label, "end", 11))
            body += [cell(left + size * i, y, size, value) for i, value in enumerate(values)]
            y += CELL
        y += 14
    body += key(left, y, unit)
    return drawing(width, y + 34, title, body)
