"""How does the hub carry a class? Students log in at once, and each runs a chapter from the top.

    .venv/bin/python classroom/hub/load.py STUDENTS [CHAPTER]

Everything goes through the hub's own HTTP API, as a browser would: log in, start the server, start
a kernel, run each cell over its websocket. The hub is one of its own, run as `make hub` does, with
an empty database and homes; it ends with the test. Memory is what the students' processes take,
pages that they share divided among them (PSS): their JupyterLab, kernels and VMs.

Run as root, so that each student is a user of their own, when `make hub` has set everything up.
Ends with 0 when nobody had a failure.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import nbformat
import websocket
from students import FIRST_USER_ID

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
URL = "http://127.0.0.1:8765"
START_SECONDS, CELL_SECONDS = 300, 600


@dataclass
class Visit:
    """What one student saw: seconds, and what failed."""

    name: str
    server_seconds: float = 0.0
    lab_seconds: float = 0.0
    chapter_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


class Student:
    """A browser of its own: cookies, then a token, then a kernel."""

    def __init__(self, name: str, password: str) -> None:
        self.visit = Visit(name)
        self._name, self._password = name, password
        self._http = httpx.Client(base_url=URL, follow_redirects=True, timeout=60)

    def attend(self, cells: list[tuple[str, str]]) -> Visit:
        """Log in, start the server, run the cells; what fails is noted and ends the visit."""
        try:
            began = time.monotonic()
            self._log_in()
            self._start_server()
            self.visit.server_seconds = time.monotonic() - began
            self._run(cells)
        except Exception as error:
            self.visit.failures.append(f"{type(error).__name__}: {error}")
        return self.visit

    def _log_in(self) -> None:
        self._http.get("/hub/login").raise_for_status()
        form = {"username": self._name, "password": self._password, "_xsrf": self._xsrf("/hub/")}
        self._http.post("/hub/login?next=/hub/home", data=form).raise_for_status()
        headers = {"X-XSRFToken": self._xsrf("/hub/")}
        path = f"/hub/api/users/{self._name}/tokens"
        token = self._http.post(path, json={"note": "load test"}, headers=headers)
        token.raise_for_status()
        self._token = token.json()["token"]
        self._http = httpx.Client(
            base_url=URL, headers={"Authorization": f"token {self._token}"}, timeout=60
        )

    def _xsrf(self, path: str) -> str:
        return next(c.value for c in self._http.cookies.jar if c.name == "_xsrf" and c.path == path)

    def _start_server(self) -> None:
        self._http.post(f"/hub/api/users/{self._name}/server").raise_for_status()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            user = self._http.get(f"/hub/api/users/{self._name}").json()
            if user["servers"].get("", {}).get("ready"):
                return
            time.sleep(0.5)
        raise TimeoutError(f"no server within {START_SECONDS} s")

    def _run(self, cells: list[tuple[str, str]]) -> None:
        began = time.monotonic()
        path = f"/user/{self._name}/api/kernels"
        kernel = self._http.post(path, json={"name": "python3", "path": "notebooks"})
        kernel.raise_for_status()
        address = f"{URL.replace('http', 'ws')}{path}/{kernel.json()['id']}/channels"
        token = [f"Authorization: token {self._token}"]
        socket = websocket.create_connection(address, header=token, timeout=CELL_SECONDS)
        try:
            for number, (name, code) in enumerate(cells):
                self._run_cell(socket, name, code)
                if self.visit.failures:  # what comes after it fails because of it
                    break
                if number == 0:  # `lab = Lab()`
                    self.visit.lab_seconds = time.monotonic() - began
        finally:
            socket.close()
        self.visit.chapter_seconds = time.monotonic() - began

    def _run_cell(self, socket: websocket.WebSocket, name: str, code: str) -> None:
        ident = uuid.uuid4().hex
        header = {"msg_id": ident, "msg_type": "execute_request", "username": "", "session": ident}
        content = {"code": code, "silent": False, "allow_stdin": False, "stop_on_error": False}
        message = {"header": {**header, "version": "5.3"}, "parent_header": {}, "metadata": {}}
        socket.send(json.dumps({**message, "content": content, "channel": "shell"}))
        while True:
            answer = json.loads(socket.recv())
            if answer["parent_header"].get("msg_id") != ident:
                continue
            said = answer["content"]
            if answer["msg_type"] == "error":
                self.visit.failures.append(f"{name}: {said['ename']}: {said['evalue'][:300]}")
            if answer["msg_type"] == "status" and said["execution_state"] == "idle":
                return


class Usage(threading.Thread):
    """Looks every few seconds at what each student's processes take."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most: dict[int, int] = {}
        """Of each student, the most bytes at a time."""
        self.most_in_all = 0
        self._cpu_seconds: dict[tuple[int, str], float] = {}  # of a student's process, at last
        self._ended = threading.Event()

    @property
    def cpu_seconds(self) -> list[float]:
        """Of each student, whatever has been running when it was looked at."""
        users = {user for user, _ in self._cpu_seconds}
        return [sum(s for (u, _), s in self._cpu_seconds.items() if u == user) for user in users]

    def run(self) -> None:
        while not self._ended.wait(5):
            now: dict[int, int] = {}
            for folder in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    user = folder.stat().st_uid
                    if FIRST_USER_ID < user < FIRST_USER_ID + 10_000:
                        now[user] = now.get(user, 0) + _pss_bytes(folder)
                        self._cpu_seconds[user, folder.name] = _cpu_seconds(folder)
            for user, used in now.items():
                self.most[user] = max(used, self.most.get(user, 0))
            self.most_in_all = max(self.most_in_all, sum(now.values()))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _pss_bytes(process: Path) -> int:
    found = re.search(r"^Pss:\s+(\d+)", (process / "smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def _cpu_seconds(process: Path) -> float:
    user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def hub(folder: Path, password: str):
    """A hub of our own, in ``folder``."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EBPFLAB_HUB_URL": URL,
        "EBPFLAB_HUB_PASSWORD": password,
        "EBPFLAB_HUB_FOLDER": str(folder),
    }
    command = [sys.executable, "-m", "jupyterhub", "-f", str(HERE / "jupyterhub_config.py")]
    log = folder / "hub.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{URL}/hub/health", timeout=5).status_code == 200:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"The hub did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.5)
        yield
    finally:
        process.terminate()  # it ends the students' servers, and those their kernels and VMs
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _end_proxy(folder)


def _end_proxy(folder: Path) -> None:
    """A hub that failed leaves it behind, in a session of its own and on its ports."""
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "proxy.pid").read_text()), signal.SIGKILL)


def report(visits: list[Visit], usage: Usage) -> None:
    """The figures, a line each."""
    for label, name in [
        ("log in, until JupyterLab answers", "server_seconds"),
        ("from there, until Lab() is there", "lab_seconds"),
        ("the whole chapter", "chapter_seconds"),
    ]:
        seconds = sorted(getattr(visit, name) for visit in visits)
        print(f"{label}: median {statistics.median(seconds):.0f} s, longest {seconds[-1]:.0f} s")
    if usage.most:
        mib = sorted(used >> 20 for used in usage.most.values())
        print(
            f"memory of a student, at most: median {statistics.median(mib):.0f} MiB, {mib[-1]} MiB"
        )
        print(f"CPU time of a student: median {statistics.median(usage.cpu_seconds):.0f} s")
        print(f"memory of all students at once: {usage.most_in_all >> 20} MiB")
    for visit in visits:
        for failure in visit.failures:
            print(f"{visit.name}: {failure}")
    print(f"failures: {sum(bool(visit.failures) for visit in visits)} of {len(visits)} students")


def main() -> int:
    students = int(sys.argv[1])
    chapter = sys.argv[2] if len(sys.argv) > 2 else "01-kprobes"
    notebook = nbformat.read(REPOSITORY / "notebooks" / f"{chapter}.ipynb", as_version=4)
    cells = [(c.metadata.name, c.source) for c in notebook.cells if c.cell_type == "code"]
    password = secrets.token_urlsafe(9)
    with tempfile.TemporaryDirectory(prefix="hub-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        with hub(Path(folder), password), ThreadPoolExecutor(students) as pool:
            usage = Usage()
            usage.start()
            names = [f"student{number:02}" for number in range(1, students + 1)]
            visits = list(pool.map(lambda name: Student(name, password).attend(cells), names))
            usage.stop()
        if any(visit.failures for visit in visits):
            print(f"What the hub said last:\n{(Path(folder) / 'hub.log').read_text()[-3000:]}")
    report(visits, usage)
    return 1 if any(visit.failures for visit in visits) else 0


if __name__ == "__main__":
    sys.exit(main())
