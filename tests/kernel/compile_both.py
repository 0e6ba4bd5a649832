"""Runs under the system's Python, as root: what BCC makes of programs with and without precompiled
headers, each told by what is loaded and by what clang prints.

    compile_both.py AGENT_ZIP FOLDER < '[{"name": ..., "text": ..., "cflags": [...]}, ...]'

FOLDER keeps the precompiled headers. Prints JSON: for each name, the
includes that were precompiled, and where the results differ.
"""

import ctypes as ct
import json
import os
import re
import struct
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import bcc

from ebpflab.agent.faults import printed
from ebpflab.agent.kernel import btf, headers, syscalls
from ebpflab.agent.programs import choices, compiling, precompiled
from ebpflab.agent.programs.instrument import instrument

_KINDS = [bcc.BPF.KPROBE, bcc.BPF.TRACEPOINT, bcc.BPF.RAW_TRACEPOINT, bcc.BPF.PERF_EVENT]
_MAP_OF = 1  # BPF_PSEUDO_MAP_FD, in the source register of an instruction that loads 64 bits
# struct bpf_prog_info: btf_id, nr_line_info, line_info, line_info_rec_size
_INFO_BYTES, _BTF_ID_AT, _LINE_COUNT_AT, _LINES_AT, _LINE_BYTES_AT = 256, 128, 148, 152, 172
_LINE = struct.Struct("<4I")  # struct bpf_line_info


def instructions(code, maps):
    """The instructions of a function, in which maps are named and not numbered."""
    found = []
    for at in range(0, len(code), 8):
        opcode, registers, offset, value = struct.unpack_from("<BBhi", code, at)
        is_map = opcode == 0x18 and registers >> 4 == _MAP_OF
        found.append((opcode, registers, offset, maps.get(value, value) if is_map else value))
    return found


def lines(fd, tree):
    """The places in the source that the kernel keeps for the instructions of a loaded function."""
    info = ct.create_string_buffer(_INFO_BYTES)
    syscalls.object_info(fd, info)
    (number,) = struct.unpack_from("<I", info, _BTF_ID_AT)
    (count,) = struct.unpack_from("<I", info, _LINE_COUNT_AT)
    if not count or not number:
        return []
    records = ct.create_string_buffer(count * _LINE.size)
    info = ct.create_string_buffer(_INFO_BYTES)
    struct.pack_into("<I", info, _LINE_COUNT_AT, count)
    struct.pack_into("<Q", info, _LINES_AT, ct.addressof(records))
    struct.pack_into("<I", info, _LINE_BYTES_AT, _LINE.size)
    syscalls.object_info(fd, info)
    table = syscalls.bpf(syscalls.BTF_GET_FD_BY_ID, struct.pack("<4I", number, 0, 0, 0))
    blob = btf._read(table)
    os.close(table)
    strings = struct.unpack_from("<I", blob, 4)[0] + struct.unpack_from("<I", blob, 16)[0]

    def text(offset):
        return blob[strings + offset : blob.index(b"\0", strings + offset)].decode()

    return [
        (instruction, os.path.normpath(Path(tree, text(file))), text(line), place)
        for instruction, file, line, place in _LINE.iter_unpack(records.raw)
    ]


def functions(bpf, maps, tree):
    """The instructions of each function, and their lines where the kernel accepts it."""
    found = {}
    for index in range(bcc.lib.bpf_num_functions(bpf.module)):
        name = bcc.lib.bpf_function_name(bpf.module, index)
        found[f"function {name.decode()}"] = instructions(bpf.dump_func(name), maps)
        for kind in _KINDS:
            loaded, refused, _ = compiling.bcc_call(partial(bpf.load_func, name, kind))
            if refused is None:
                found[f"lines {name.decode()}"] = lines(loaded.fd, tree)
                break
    return found


def outcome(text, cflags, choice, tree):
    """All that can be compared of one compilation."""
    code = instrument(text)
    flags = [*compiling._CFLAGS, *code.cflags, *cflags, *choice.flags]
    bpf, complaint, log = compiling._by_bcc(code.text, flags)
    again = bpf is None and compiling._precompiled.once_more(choice, log)
    # Each name that a macro makes of parts has a number among all of them.
    log = re.sub(r"<scratch space>:\d+", "<scratch space>", choice.of_headers(log))
    if bpf is None:
        return {"complaint": complaint, "log": log, "again": again}
    maps, described = {}, {}
    for index in range(bcc.lib.bpf_num_tables(bpf.module)):
        name = bcc.lib.bpf_table_name(bpf.module, index)
        maps[bcc.lib.bpf_table_fd(bpf.module, name)] = name.decode()
        described[f"map {name.decode()}"] = [
            bcc.lib.bpf_table_type_id(bpf.module, index),
            bcc.lib.bpf_table_key_size(bpf.module, name),
            bcc.lib.bpf_table_leaf_size(bpf.module, name),
            bcc.lib.bpf_table_max_entries_id(bpf.module, index),
            str(bcc.lib.bpf_table_key_desc(bpf.module, name)),
            str(bcc.lib.bpf_table_leaf_desc(bpf.module, name)),
        ]
    types = btf.of_maps(maps).hex()
    compared = {"log": log, "types": types, **described, **functions(bpf, maps, tree)}
    bpf.cleanup()
    return compared


def compare(store, each):
    text, cflags = each["text"], each["cflags"]
    prefix = precompiled.prefix_of(text)
    if store.longest(prefix) != prefix:
        store.make(prefix)
    have = store.longest(prefix)
    choice = choices.Choice(
        ["-include-pch", store.use(have)], have, None, os.path.realpath(store.tree())
    )
    plain = outcome(text, cflags, choices.without("to compare"), choice.tree)
    quick = outcome(text, cflags, choice, choice.tree)
    names = {*plain, *quick}
    return {
        "includes": have,
        "complaint": plain.get("complaint"),
        "again": quick.get("again"),
        "instructions": sum(len(plain[name]) for name in plain if name.startswith("function ")),
        "lines": sum(len(plain[name]) for name in plain if name.startswith("lines ")),
        "differ": {
            name: [plain.get(name), quick.get(name)]
            for name in names - ({"again", "log"} if quick.get("again") else {"again"})
            if plain.get(name) != quick.get(name)
        },
    }


def main():
    answers = os.dup(1)
    printed.redirect()
    headers.Headers().prepare(None)
    store = precompiled.Store(
        precompiled.Compiler.find(), precompiled.Kernel.running(), sys.argv[2]
    )
    store.make(())
    for each in json.load(sys.stdin):
        line = json.dumps({"name": each["name"], **compare(store, each)})
        os.write(answers, line.encode() + b"\n")


main()
