"""pyproject.toml, constraints.txt, environment.yml and .ci/run agree with one another."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def pins() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in found.items()}


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    return [Requirement(text) for text in texts]


def conda() -> dict[str, str]:
    text = (REPOSITORY / "environment.yml").read_text()
    return dict(re.findall(r"^  - ([\w.-]+)=+([\w.]+)$", text, re.MULTILINE))


def test_every_requirement_is_pinned_to_a_version_it_allows() -> None:
    for requirement in requirements():
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_constraints_are_exact_and_name_no_registry() -> None:
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line


def test_conda_environment_has_the_versions_of_constraints() -> None:
    found = conda()
    needed = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert needed | {"jupyterlab"} <= found.keys()
    for name, version in found.items():
        if name not in ("python", "pip"):
            assert version == pins()[name], name


def test_conda_environment_has_a_python_that_is_allowed() -> None:
    allowed = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert allowed.contains(conda()["python"])


def test_conda_environment_leaves_bcc_to_the_system() -> None:
    assert "bcc" not in conda()
    assert "bcc" not in {requirement.name for requirement in requirements()}


def test_continuous_integration_runs_the_test_command() -> None:
    lines = (REPOSITORY / ".ci/run").read_text().splitlines()
    commands = [line for line in lines if not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec make test"]
