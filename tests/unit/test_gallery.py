"""The gallery shows every picture that it keeps, and keeps every one that it shows."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_each_picture_is_shown_once_and_is_there() -> None:
    shown = re.findall(
        r"!\[[^\]]{10,}\]\(images/gallery/([\w-]+\.png)\)", (DOCS / "gallery.md").read_text()
    )
    assert sorted(shown) == sorted(path.name for path in (DOCS / "images" / "gallery").iterdir())
    for name in shown:
        assert (DOCS / "images" / "gallery" / name).read_bytes().startswith(b"\x89PNG")
