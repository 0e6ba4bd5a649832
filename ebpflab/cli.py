"""The command `ebpflab`: what a shell can do that a notebook should not have to.

    ebpflab doctor         what this machine can trace, and what Lab() would choose
    ebpflab vm             build, list, enter and remove the guest; make a box of it
    ebpflab record         run a chapter, and keep what Lab("replay") will play
    ebpflab setup-sudo     let one user start the agent as root, and nothing else

An error of ours ends a command with one message and exit status 1, never a traceback; Ctrl-C
ends it with 130, and a reader of its output that goes away with 141, as shells count signals.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from ebpflab.errors import EbpflabError, TargetError
from ebpflab.protocol.messages import Feature
from ebpflab.targets import choose, own_features


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        status = command(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has read enough; what is left would fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except EbpflabError as error:
        print(f"ebpflab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nebpflab: interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ebpflab",
        description="eBPF tracing from a Jupyter notebook. `make lab` opens the notebooks.",
    )
    parser.add_argument("--version", action="version", version=f"ebpflab {version('ebpflab')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    doctor = commands.add_parser(
        "doctor",
        help="what this machine can trace, and how to mend what it cannot",
        description="Look at everything that tracing depends on. Changes nothing. "
        "Exit status 0 when Lab() would find a kernel to trace, 1 when not.",
    )
    doctor.add_argument("--json", action="store_true", help="for programs to read")
    doctor.set_defaults(command=_doctor)

    _add_vm(commands.add_parser("vm", help="build, list, enter and remove the guest"))

    _add_record(
        commands.add_parser("record", help="run a chapter, and keep what Lab('replay') will play")
    )

    sudo = commands.add_parser(
        "setup-sudo",
        help="let one user start the agent as root, and nothing else",
        description="Install a copy of the agent that only root can change, and a sudo rule "
        "that names it, for the user who called sudo. Shows both and asks before it writes.",
    )
    sudo.add_argument("--remove", action="store_true", help="take the rule and the copy away")
    sudo.add_argument("--yes", action="store_true", help="do not ask")
    sudo.set_defaults(command=_setup_sudo)
    return parser


def _add_vm(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The guest is a small Debian with a kernel that can be traced: Debian 13, or what the "
        "environment variable EBPFLAB_SUITE names (bookworm, trixie-backports)."
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="make the guest's image, if it is not there")
    build.set_defaults(command=_vm_build)
    box = actions.add_parser("box", help="make a Vagrant box of the guest's recipe, for libvirt")
    box.add_argument("file", type=Path, help="where to write it")
    box.set_defaults(command=_vm_box)
    actions.add_parser("list", help="the images that were built").set_defaults(command=_vm_list)
    actions.add_parser("shell", help="a root shell in a guest").set_defaults(command=_vm_shell)
    remove = actions.add_parser("rm", help="remove an image")
    remove.add_argument("hash", help="its hash, or the beginning of it, as `vm list` shows it")
    remove.set_defaults(command=_vm_remove)


def _add_record(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run notebooks from top to bottom against a kernel, and keep all that crosses the wire as"
        " the recording of that chapter. Without names: the chapters of notebooks/ whose"
        " recording does not fit them any more."
    )
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--target", default="vm", help="whose kernel (default: vm)")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where to; default: as the chapter's own"
    )
    parser.set_defaults(command=_record)


# --- doctor --------------------------------------------------------------------------


def _doctor(arguments: argparse.Namespace) -> int:
    rows = own_features()
    name, verdict = _choice()
    if arguments.json:
        print(json.dumps({"features": rows, "target": name, "verdict": verdict}, indent=2))
    else:
        print(table(rows, shutil.get_terminal_size((100, 24)).columns))
        print(f"\n{verdict}")
    return 0 if name else 1


def _choice() -> tuple[str | None, str]:
    """The target that Lab() would take, if any, and why; else what to do about it."""
    try:
        target, why = choose("auto")
        stands_against = target.unavailable()
    except TargetError as error:
        return None, str(error)
    return (None, stands_against) if stands_against else (target.name, f"Lab() works here. {why}")


def table(rows: Iterable[Feature], width: int) -> str:
    """The rows for a terminal of ``width`` columns; what to do stands under the reason."""
    return "\n".join(line for row in rows for line in _lines(row, max(width, 60)))


def _lines(row: Feature, width: int) -> Iterator[str]:
    head = f"{row['status']:<8} {row['feature']:<22} "
    indent = " " * len(head)
    yield from _wrap(head + row["reason"], width, indent)
    if row["fix"]:
        yield from _wrap(f"{indent}-> {row['fix']}", width, indent + "   ")


def _wrap(text: str, width: int, indent: str) -> list[str]:
    """Lines that break at spaces only, so that a command or a path can be copied."""
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


# --- the guest -----------------------------------------------------------------------


def _vm_build(arguments: argparse.Namespace) -> int:
    from ebpflab import vm

    path = vm.build(lambda text: print(text, flush=True))
    print(f"The guest is ready: {path}")
    return 0


_USE_BOX = """\
The box is ready: {file}
    vagrant box add --force --name ebpflab {file}
    EBPFLAB_BOX=ebpflab vagrant up --provider libvirt
without KVM, with EBPFLAB_EMULATE=1 as well. Its key is in it: do not give it away."""


def _vm_box(arguments: argparse.Namespace) -> int:
    from ebpflab import vm

    vm.build_box(arguments.file, lambda text: print(text, flush=True))
    print(_USE_BOX.format(file=arguments.file))
    return 0


def _vm_list(arguments: argparse.Namespace) -> int:
    from ebpflab import vm

    images = vm.images()
    if not images:
        print("No image has been built yet. Build one: ebpflab vm build")
        return 0
    layout = "{:<14}{:<19}{:<28}{:<10}{:>8}  {:<18}{:<6}{}"
    print(layout.format("HASH", "SUITE", "KERNEL", "BCC", "SIZE", "CREATED", "ACCEL", "").rstrip())
    for image in images:
        size = f"{image.size_bytes / 1e6:,.0f} MB"
        created = f"{image.created:%Y-%m-%d %H:%M}"
        note = "current" if image.current else ""
        cells = (image.hash[:12], image.suite, image.kernel, image.bcc, size, created)
        print(layout.format(*cells, image.accel or "", note).rstrip())
    return 0


def _vm_shell(arguments: argparse.Namespace) -> int:
    from ebpflab import vm

    return vm.shell()


def _vm_remove(arguments: argparse.Namespace) -> int:
    from ebpflab import vm

    vm.remove(arguments.hash)
    print("Removed. `ebpflab vm build` makes it again.")
    return 0


# --- recordings ----------------------------------------------------------------------


def _record(arguments: argparse.Namespace) -> int:
    from ebpflab.notebook import chapters

    notebooks = arguments.notebooks or [
        path for path in sorted(Path("notebooks").glob("*.ipynb")) if chapters.stale(path)
    ]
    if arguments.output and len(notebooks) != 1:
        raise EbpflabError("--output is the recording of one notebook: name one.")
    for notebook in notebooks:
        path = chapters.record(
            notebook,
            arguments.target,
            lambda text: print(text, flush=True),
            arguments.output,
        )
        print(f"{path}: {path.stat().st_size:,} bytes", flush=True)
    if not notebooks:
        print("The recording of every chapter of notebooks/ fits it.")
    return 0


# --- sudo ----------------------------------------------------------------------------


def _setup_sudo(arguments: argparse.Namespace) -> int:
    from ebpflab.targets import sudo

    if arguments.remove:
        removed = sudo.remove()
        print("\n".join(f"Removed {path}" for path in removed) or "There was nothing to remove.")
        return 0
    user = sudo.user_to_allow()
    print(sudo.describe(user))
    if not arguments.yes and not _agreed():
        print("Nothing was written.")
        return 1
    sudo.install(user)
    print(f'Done. {user} may now start the agent as root: Lab("local").')
    return 0


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise EbpflabError(
            "Setting up sudo: there is nobody at a terminal to ask. Add --yes to agree."
        )
    return input("Write these? [y/N] ").strip().lower() in ("y", "yes")
