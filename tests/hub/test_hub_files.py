"""The hub's files say what their programs understand, and agree with one another."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from jupyterhub.app import JupyterHub
from jupyterhub.auth import Authenticator, PAMAuthenticator
from jupyterhub.authenticators.shared import SharedPasswordAuthenticator
from jupyterhub.proxy import ConfigurableHTTPProxy
from jupyterhub.spawner import SimpleLocalProcessSpawner, Spawner
from systemdspawner import SystemdSpawner
from traitlets.config import Config, PyFileConfigLoader

REPOSITORY = Path(__file__).parents[2]
HUB = REPOSITORY / "classroom" / "hub"
CONFIGURABLE = (
    JupyterHub,
    Authenticator,
    PAMAuthenticator,
    SharedPasswordAuthenticator,
    ConfigurableHTTPProxy,
    SimpleLocalProcessSpawner,
    Spawner,
    SystemdSpawner,
)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("EBPFLAB_HUB_FOLDER", str(tmp_path / "hub"))
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(name: str) -> Config:
        path = HUB / name
        return PyFileConfigLoader(path.name, str(path.parent)).load_config()

    return load


@pytest.mark.parametrize("name", ["jupyterhub_config.py", "server/jupyterhub_config.py"])
def test_each_setting_exists(load: Any, name: str) -> None:
    classes = {each.__name__: each for each in CONFIGURABLE}
    for section, settings in load(name).items():
        for setting in settings:
            assert setting in classes[section].class_traits(config=True), f"{section}.{setting}"


@pytest.mark.parametrize("name", ["jupyterhub_config.py", "server/jupyterhub_config.py"])
def test_labs_are_in_a_vm_on_loopback_and_end_when_idle(load: Any, name: str) -> None:
    config = load(name)
    assert config.JupyterHub.bind_url.startswith("http://127.0.0.1:")
    assert config.Spawner.environment["EBPFLAB_TARGET"] == "vm"
    (culler,) = config.JupyterHub.services
    assert any(word.startswith("--timeout=") for word in culler["command"])
    assert {role["name"] for role in config.JupyterHub.load_roles} == {culler["name"]}
    assert importlib.util.find_spec("jupyterhub_idle_culler")
    culled = [word for word in config.Spawner.args if "cull_idle_timeout" in word]
    assert culled and "--MappingKernelManager.cull_connected=True" in config.Spawner.args


def test_the_local_password_is_new_each_time_and_long(load: Any) -> None:
    passwords = {
        load("jupyterhub_config.py").SharedPasswordAuthenticator.user_password for _ in range(3)
    }
    assert len(passwords) == 3 and all(len(password) >= 12 for password in passwords)


@pytest.mark.parametrize(
    ("name", "valid"), [("ada-1", True), ("..", False), (".", False), ("a/b", False), ("", False)]
)
def test_a_name_is_the_name_of_one_home(load: Any, name: str, valid: bool) -> None:
    assert Authenticator(config=load("jupyterhub_config.py")).validate_username(name) is valid


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which takes root")
def test_chapters_are_copied_with_the_rights_of_the_student(
    load: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    load("jupyterhub_config.py")  # which makes `students` importable
    from students import FIRST_USER_ID, StudentSpawner

    for folder in (tmp_path, *tmp_path.parents):  # pytest's own, which only root may enter
        if folder.stat().st_uid == 0 and folder.is_relative_to(Path(tempfile.gettempdir())):
            folder.chmod(folder.stat().st_mode | 0o011)
    student = FIRST_USER_ID + 9_999
    spawner: Any = SimpleNamespace(home_dir=str(tmp_path / "ada"), student_id=student)
    StudentSpawner.make_home(spawner)
    chapter = tmp_path / "ada" / "notebooks" / "01-kprobes.ipynb"
    assert chapter.stat().st_uid == student

    chapter.write_text("mine")
    StudentSpawner.make_home(spawner)
    assert chapter.read_text() == "mine"

    chapter.unlink()
    chapter.symlink_to(tmp_path / "of-root")
    StudentSpawner.make_home(spawner)
    assert not (tmp_path / "of-root").exists()
    assert "01-kprobes" in capfd.readouterr().err


def test_the_unit_runs_files_that_are_there() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(HUB / "server" / "ebpflab-hub.service")
    paths = re.findall(r"/opt/ebpflab/(classroom/\S+)", unit["Service"]["ExecStart"])
    assert paths and all((REPOSITORY / path).exists() for path in paths)
    assert unit["Service"]["ExecStartPre"].endswith("ebpflab vm build")


def test_kubernetes_files_agree() -> None:
    values = yaml.safe_load((HUB / "kubernetes" / "values.yaml").read_text())
    nodes = yaml.safe_load((HUB / "kubernetes" / "warm-nodes.yaml").read_text())
    student = values["singleuser"]
    (builder,) = nodes["spec"]["template"]["spec"]["containers"]
    assert builder["image"] == f"{student['image']['name']}:{student['image']['tag']}"
    (mount,) = student["storage"]["extraVolumeMounts"]
    assert mount["readOnly"] and builder["volumeMounts"][0]["mountPath"] == mount["mountPath"]
    (volume,) = nodes["spec"]["template"]["spec"]["volumes"]
    assert volume["hostPath"]["path"] == student["storage"]["extraVolumes"][0]["hostPath"]["path"]
    device = "devices.kubevirt.io/kvm"
    assert student["extraResource"]["limits"][device] == "1"
    assert device in builder["resources"]["limits"]
    assert values["cull"]["enabled"] and student["extraEnv"]["EBPFLAB_TARGET"] == "vm"


def test_the_dockerfile_installs_what_a_guest_is_built_and_run_with() -> None:
    text = (HUB / "kubernetes" / "Dockerfile").read_text()
    installed = set(
        re.findall(r"[\w.+-]+", text.partition("apt-get install")[2].partition("&&")[0])
    )
    spec = importlib.util.spec_from_file_location("host_packages", _HOST / "packages.py")
    assert spec is not None and spec.loader is not None
    sys.path.insert(0, str(_HOST))
    try:
        packages = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(packages)
    finally:
        sys.path.remove(str(_HOST))
    assert {package.name for package in packages.FOR_GUEST} <= installed
    for source in re.findall(r"^COPY (\S+)", text, re.MULTILINE):
        assert (REPOSITORY / source).exists()
    ignored = (REPOSITORY / ".dockerignore").read_text().split()
    assert {"course", "hub", ".venv", ".git"} <= set(ignored)


_HOST = REPOSITORY / "provision" / "host"
