"""How a lab and a program show themselves at the end of a notebook cell.

Plain HTML in the colours of whatever theme surrounds it, and nothing that needs a script: it
looks the same in a saved notebook, and when that is exported.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def card(title: str, facts: Iterable[tuple[str, str]]) -> str:
    """A heading and a line for each fact that is not empty.

    >>> card("Lab", [("kernel", "6.12"), ("headers", "")])
    '<div><b>Lab</b><br>kernel: 6.12</div>'
    """
    lines = [f"{name}: {html.escape(text)}" for name, text in facts if text]
    return f"<div>{'<br>'.join([f'<b>{html.escape(title)}</b>', *lines])}</div>"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers stand to the right, with commas between thousands."""
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    head = "".join(f'<th style="text-align:left">{html.escape(each)}</th>' for each in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if body else ""


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f'<td style="text-align:right">{value:,.0f}</td>'
    return f'<td style="text-align:left">{html.escape(str(value))}</td>'
