"""What a program is attached to.

Program -> Attachments -> Probe: each of them an attachment that the agent has made.
"""

from __future__ import annotations

from collections.abc import Sequence

from ebpflab import perf_events
from ebpflab.display import cells
from ebpflab.protocol import messages
from ebpflab.transport.connection import Connection


class Probe:
    """One attachment. Running the cell again that asked for it takes it away first."""

    def __init__(
        self,
        owner: Attachments,
        ident: int,
        place: str,
        function: str,
        asked: messages.Attach | None = None,
    ) -> None:
        self._owner, self.ident = owner, ident
        self.place, self.function = place, function
        self.asked = asked
        """What the agent was asked for; None where the program has attached itself."""

    def close(self) -> None:
        """Detach it, unless that has been done."""
        self._owner.take_away(self)

    def __str__(self) -> str:
        return f"{self.place} -> {self.function}"


class Attachments:
    """The probes of one program."""

    def __init__(self, connection: Connection, program: int, source: str) -> None:
        self._connection, self._program, self._source = connection, program, source
        self._now: dict[int, Probe] = {}  # by the agent's number
        self._again: list[messages.Attach] = []  # what was asked for, each once, in order
        self._detached = False
        self.of_functions: dict[str, list[str]] = {}
        """The places of each function's probes; after `detach`, too."""

    @property
    def names(self) -> list[str]:
        """What is attached now, as ``kind place -> function``."""
        return [str(probe) for probe in self._now.values()]

    def attach(self, kind: str, function: str, where: messages.Where) -> None:
        """Attach a function for the running cell; what an earlier run of it attached goes."""
        cells.retire()
        asked = messages.Attach(program=self._program, kind=kind, fn_name=function, where=where)
        probe = self._attach(asked)
        if asked not in self._again:
            self._again.append(asked)
        cells.adopt(probe)

    def note(self, attached: Sequence[messages.AttachedProbe]) -> None:
        """Remember what has attached itself: by its name, or as a USDT probe."""
        for each in attached:
            self._note(Probe(self, each["attachment"], each["probe"], each["fn_name"]))

    def forget(self) -> None:
        """The agent has taken all of them away, or will."""
        self._now.clear()

    def detach(self) -> None:
        """Take all of them away."""
        self._now.clear()  # first: when it is interrupted, the agent does it all the same
        self._detached = True
        self._connection.request(messages.DETACH, messages.Detach(program=self._program))

    def attach_again(self, usdt_contexts: list[messages.UsdtContext]) -> None:
        """Attach once more all that was ever attached, after a `detach`; or none of it."""
        if not self._detached:
            return
        try:
            again = self._connection.request(
                messages.ATTACH_AGAIN,
                messages.AttachAgain(program=self._program, usdt_contexts=usdt_contexts),
            )
            self.note(again.ok["attached"])
            for each in self._again:
                self._attach(each)
        except BaseException:
            self._now.clear()
            self._connection.tell(messages.DETACH, messages.Detach(program=self._program))
            raise
        self._detached = False

    def take_away(self, probe: Probe) -> None:
        """Detach one, and let `attach_again` forget it. Never waits."""
        if self._now.get(probe.ident) is not probe:
            return
        del self._now[probe.ident]
        self._again = [asked for asked in self._again if asked != probe.asked]
        if all(str(other) != str(probe) for other in self._now.values()):
            self.of_functions[probe.function].remove(probe.place)
        self._tell_detach(probe.ident)

    def _attach(self, asked: messages.Attach) -> Probe:
        answer = self._connection.request(
            messages.ATTACH, asked, c_source=self._source, undo=self._undo
        )
        function = asked["fn_name"]
        place = f"{asked['kind']} {_place(function, asked['where'])}"
        return self._note(Probe(self, answer.ok["attachment"], place, function, asked))

    def _undo(self, attached: messages.Attached) -> None:
        """Take away what was attached when nobody waited for it any more."""
        if attached["attachment"] not in self._now:
            self._tell_detach(attached["attachment"])

    def _tell_detach(self, attachment: int) -> None:
        asked = messages.Detach(program=self._program, attachment=attachment)
        self._connection.tell(messages.DETACH, asked)

    def _note(self, probe: Probe) -> Probe:
        if not self._now:
            self.of_functions.clear()
        known = self._now.setdefault(probe.ident, probe)  # asked for twice, it is there once
        places = self.of_functions.setdefault(probe.function, [])
        if probe.place not in places:
            places.append(probe.place)
        return known


def _place(function: str, where: messages.Where) -> str:
    """Where a probe is, in words."""
    if "ev_type" in where:
        of = f" in process {where['pid']}" if where["pid"] > 0 else ""
        return (
            perf_events.describe(
                where["ev_type"],
                where["ev_config"],
                where["sample_period"],
                where["sample_freq"],
            )
            + of
        )
    if "name" in where:
        return f"{where['name']}:{where.get('sym') or where.get('addr')}"
    return where.get("event") or where.get("tp") or function
