"""What ``%load_ext ebpflab`` adds to a notebook.

    %%bpf NAME     C in a cell of its own, compiled into the program NAME      (magics)
    Tab            names of probes, symbols and functions in attach calls      (completion)

Errors and representations need no loading: an error of ebpflab shows the reader's own line and
the message (`EbpflabError`), and a program or lab at the end of a cell shows what it does.
"""

from __future__ import annotations

from IPython.core.interactiveshell import InteractiveShell

from ebpflab.notebook.completion import IDENTIFIER, Completion
from ebpflab.notebook.magics import BpfMagics


def load(shell: InteractiveShell) -> None:
    """Add the magic and the completion to a running IPython."""
    shell.register_magics(BpfMagics)
    assert shell.Completer is not None
    matchers = shell.Completer.custom_matchers
    if not any(getattr(each, "matcher_identifier", "") == IDENTIFIER for each in matchers):
        matchers.append(Completion(shell).match)
