"""The shell of a report: one HTML file that needs nothing else, readable on light and dark screens."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#1b1f24;--soft:#59636e;--line:#d8dee4;--card:#f6f8fa;--warn:#9a6700;
--warnbg:#fff8c5;--good:#1a7f37;--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--ink:#e6edf3;--soft:#9aa4af;--line:#30363d;--card:#161b22;
--warn:#e3b341;--warnbg:#2b2310;--good:#3fb950;--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0 auto;padding:32px 20px 64px;max-width:960px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif}
h1{font-size:26px;line-height:1.25;margin:0 0 4px}h2{font-size:19px;margin:40px 0 10px}
h3{font-size:15px;margin:26px 0 8px}
p{margin:6px 0}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(138px,1fr));gap:10px;margin:18px 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 12px}
.card div{color:var(--soft);font-size:12.5px}.card b{font-size:19px;font-weight:650;white-space:nowrap}
.warn{background:var(--warnbg);border-left:4px solid var(--warn);border-radius:4px;padding:8px 14px;margin:14px 0}
.scroll{overflow-x:auto}.narrow{max-width:640px}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600}th:first-child,td:first-child{text-align:left;padding-left:0}
figure{margin:18px 0}img{width:100%;height:auto;display:block}
details{margin:12px 0;border:1px solid var(--line);border-radius:8px;padding:8px 14px}
summary{cursor:pointer;font-weight:600}pre{overflow-x:auto;font-size:12.5px;line-height:1.45;margin:8px 0;
font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}code{font:0.92em ui-monospace,Menlo,Consolas,monospace}
"""


def page(title: str, body: str) -> str:
    """The whole document."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def cards(figures: Sequence[tuple[str, str]]) -> str:
    """Headline figures side by side, as (name, text)."""
    each = (f'<div class="card"><div>{escape(name)}</div><b>{escape(text)}</b></div>' for name, text in figures)
    return f'<div class="cards">{"".join(each)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Names at the left, figures at the right."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    top = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    kind = "scroll" if len(head) > 2 else "scroll narrow"
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="{kind}"><table>{top}<tbody>\n{body}</tbody></table></div>'


def warnings(texts: Sequence[str]) -> str:
    """Boxes that cannot be overlooked; nothing if there are none."""
    return "".join(f'<div class="warn">⚠ {escape(text)}</div>' for text in dict.fromkeys(texts))


def picture(svg: str, caption: str) -> str:
    """A picture inside the file; `caption` is what readers who cannot see it get."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/svg+xml;base64,{data}"></figure>'


def details(name: str, text: str) -> str:
    """Long text, folded."""
    return f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
