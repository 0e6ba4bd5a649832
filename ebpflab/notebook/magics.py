"""``%%bpf NAME``: C in a cell of its own.

The program keeps the cell's line numbers: clang's line 7 is line 7 of the cell, with the magic
itself as line 1.
"""

from __future__ import annotations

from typing import Any

from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from ebpflab.errors import ProgramError, UnknownName
from ebpflab.lab import Lab
from ebpflab.program import Program
from ebpflab.protocol.closest import suggest


@magics_class
class BpfMagics(Magics):
    @magic_arguments()
    @argument("name", help="the variable that the program is put into")
    @argument("--lab", help="the variable of the lab; not needed while one alone is open")
    @cell_magic
    def bpf(self, line: str, cell: str) -> Program:
        """Compile the C of this cell in the open lab, and put the program into a variable.

        Running the cell again replaces the program, as with `Lab.load`; use that where a program
        needs compiler flags or USDT contexts.

            %%bpf prog
            int count(void *ctx) { return 0; }
        """
        wanted = parse_argstring(self.bpf, line)
        if not wanted.name.isidentifier():
            raise ProgramError(
                f"%%bpf puts the program into a variable, and {wanted.name!r} cannot be the name"
                " of one. Write, for example: %%bpf prog"
            )
        program = self._lab(wanted.lab).load("\n" + cell)
        self._variables()[wanted.name] = program
        return program

    def _lab(self, name: str | None) -> Lab:
        """The lab called ``name``, or the only one that is open."""
        labs = {
            called: thing
            for called, thing in self._variables().items()
            if isinstance(thing, Lab) and not thing.closed and not called.startswith("_")
        }
        if name is not None:
            if name not in labs:
                have = ", ".join(labs) or "none"
                raise UnknownName(
                    f"There is no open lab {name!r}. Open labs: {have}.{suggest(name, labs)}"
                )
            return labs[name]
        if not labs:
            raise ProgramError("There is no open lab to compile in. Run this first: lab = Lab()")
        if len({id(lab) for lab in labs.values()}) > 1:
            raise ProgramError(
                f"Several labs are open: {', '.join(labs)}. Name one:"
                f" %%bpf NAME --lab {next(iter(labs))}"
            )
        return next(iter(labs.values()))

    def _variables(self) -> dict[str, Any]:
        """The notebook's variables."""
        assert self.shell is not None
        variables: dict[str, Any] = self.shell.user_ns
        return variables
