"""A JupyterLab of our own on loopback, and a Chromium that knows nothing to look at it with.

Nothing is shared with a JupyterLab that the developer may have open: settings and runtime files
are in a folder of the caller's. The browser tests use it, and the book, to draw its diagrams.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 60_000
"""For what a page does on a busy machine; what is there at once is not waited for."""
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_SETTINGS = {
    # No question about news on the first start, and every cell in the page, seen or not.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@contextmanager
def serving(notebooks: Path, folder: Path, **environment: str) -> Iterator[str]:
    """Serve ``notebooks``; the address, up to where a path and the token go: ``{}``.

    ``folder`` is for everything that JupyterLab writes.
    """
    for name, settings in _SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    own = {
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
    }
    port, token, log = _free_port(), secrets.token_hex(16), folder / "server.log"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={notebooks}"),
        *(["--allow-root"] if os.geteuid() == 0 else []),
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env={**os.environ, **own, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_it_serves(f"{address}/api?token={token}", server, log)
        yield f"{address}{{}}?token={token}"
    finally:
        server.terminate()  # ends its kernels as well
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def browsing(folder: Path) -> Iterator[Page]:
    """A tab in a fresh Chromium, whose profile is in ``folder``."""
    assert CHROMIUM.exists(), "Chromium is missing: sudo apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=CHROMIUM,
            args=_FLAGS,
            viewport={"width": 1400, "height": 1000},
        )
        page = browser.pages[0]
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)  # which the default above does not reach
        yield page
        browser.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_serves(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not serve within five minutes:\n{log.read_text()}")
