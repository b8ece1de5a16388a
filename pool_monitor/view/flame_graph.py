"""Draws folded stacks as a flame graph: one HTML page that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

BOXES_MAX = 4000
"""Boxes that are drawn. The narrowest are left out first."""
_ROW = 18  # pixels
_COLORS = 12

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 13px system-ui, sans-serif; margin: 1em; color: #222; background: #fff }}
h1 {{ font-size: 16px; margin: 0 0 .3em }}
p {{ margin: .3em 0; min-height: 1.3em }}
#graph {{ position: relative; height: {height}px; overflow: hidden }}
#graph div {{ position: absolute; height: {inner}px; box-sizing: border-box; overflow: hidden; white-space: nowrap;
  font: 11px/{inner}px ui-monospace, monospace; padding: 0 3px; border-right: 1px solid #fff; cursor: pointer }}
#graph div:hover {{ outline: 1px solid #000; z-index: 1 }}
#graph .found {{ background: #b9e !important }}
{colors}
</style></head><body>
<h1>{title}</h1>
<p>{about} Click a box to enlarge it, click again to go back.
<label>Find <input id="find" type="search"></label></p>
<p id="hint"></p>
<div id="graph">
{boxes}
</div>
<script>
"use strict";
const boxes = [...document.querySelectorAll("#graph div")].map(box => ({{
  box, left: +box.dataset.l, width: +box.dataset.w, depth: +box.dataset.d}}));
const hint = document.getElementById("hint");
let chosen = null;
function draw() {{
  const left = chosen ? chosen.left : 0, width = chosen ? chosen.width : 1;
  for (const one of boxes) {{
    const from = Math.max(one.left, left), to = Math.min(one.left + one.width, left + width);
    one.box.hidden = to - from <= width * 1e-6;
    one.box.style.left = 100 * (from - left) / width + "%";
    one.box.style.width = 100 * (to - from) / width + "%";
  }}
}}
for (const one of boxes) {{
  one.box.onclick = () => {{ chosen = chosen === one ? null : one; draw(); }};
  one.box.onmouseenter = () => {{ hint.textContent = one.box.title; }};
}}
document.getElementById("find").oninput = event => {{
  const text = event.target.value.toLowerCase();
  for (const one of boxes) one.box.classList.toggle("found", text !== "" && one.box.title.toLowerCase().includes(text));
}};
</script></body></html>
"""


class _Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.inner: dict[str, _Node] = {}


def html(folded: Mapping[str, int], title: str, about: str) -> str:
    """Return the page. *folded*: stack -> how often it was seen, with the frames outermost first and semicolons in
    between. *title* and *about* are plain text, as everything in *folded*; all of it is escaped. At most `BOXES_MAX`
    boxes.
    """
    root = _tree(folded)
    boxes = list(_boxes(root))
    kept = sorted(boxes, key=lambda box: -box[2])[:BOXES_MAX]
    if len(kept) < len(boxes):
        about += f" {len(boxes) - len(kept)} narrow boxes are left out."
    rows = 1 + max((depth for depth, *_ in kept), default=0)
    colors = "\n".join(
        f".c{index} {{ background: hsl({18 + 3 * index} 85% {68 + index % 4 * 3}%) }}" for index in range(_COLORS)
    )
    return _PAGE.format(
        title=escape(title), about=escape(about), height=rows * _ROW, inner=_ROW - 1, colors=colors,
        boxes="\n".join(_box(*box, root.count) for box in kept),
    )  # fmt: skip


def text(folded: Mapping[str, int]) -> str:
    """Return *folded* as lines ``stack count``, the most frequent first: the input of flamegraph.pl and speedscope."""
    return "".join(f"{stack} {count}\n" for stack, count in sorted(folded.items(), key=lambda one: (-one[1], one[0])))


def _tree(folded: Mapping[str, int]) -> _Node:
    root = _Node("all")
    for stack, count in folded.items():
        node = root
        node.count += count
        for name in stack.split(";"):
            node = node.inner.setdefault(name, _Node(name))
            node.count += count
    return root


def _boxes(root: _Node) -> Iterable[tuple[int, int, int, str]]:
    """Yield depth, start, width (both in samples) and name of each box. No recursion: a stack may be deep."""
    pending = [(root, 0, 0)]
    while pending:
        node, depth, start = pending.pop()
        yield depth, start, node.count, node.name
        for name in sorted(node.inner):
            inner = node.inner[name]
            pending.append((inner, depth + 1, start))
            start += inner.count


def _box(depth: int, start: int, width: int, name: str, total: int) -> str:
    left, share = (start / total, width / total) if total else (0.0, 1.0)
    samples = f"{width} sample{'s' if width != 1 else ''}, {share:.1%}"
    color = sum(name.encode()) % _COLORS
    return (
        f'<div class="c{color}" data-l="{left:.7f}" data-w="{share:.7f}" data-d="{depth}" '
        f'style="top:{depth * _ROW}px;left:{left:.5%};width:{share:.5%}" '
        f'title="{escape(name)}: {samples}">{escape(name)}</div>'
    )
