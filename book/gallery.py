"""The gallery: pictures of chapters that `make book` has run, copied to ``docs/images/gallery``.

    make book && .venv/bin/python book/gallery.py

README and docs/gallery.md show them. Each is named after its chapter and its cell.
"""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat

REPOSITORY = Path(__file__).parents[1]
EXECUTED = REPOSITORY / "build" / "jupyter_execute" / "notebooks"
GALLERY = REPOSITORY / "docs" / "images" / "gallery"


def pictures() -> dict[str, bytes]:
    """Every PNG in the executed chapters, by ``chapter-cell``."""
    found = {}
    for path in sorted(EXECUTED.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                png = output.get("data", {}).get("image/png")
                if png:
                    found[f"{path.stem[:2]}-{cell.metadata.name}"] = base64.b64decode(png)
    return found


def main() -> None:
    made = pictures()
    if not made:
        raise SystemExit(f"No chapters have been run in {EXECUTED}: run `make book` first.")
    for old in GALLERY.glob("*.png"):
        old.unlink()
    GALLERY.mkdir(parents=True, exist_ok=True)
    for name, png in made.items():
        (GALLERY / f"{name}.png").write_bytes(png)
    print(f"{len(made)} pictures in {GALLERY.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
