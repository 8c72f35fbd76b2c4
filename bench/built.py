# SPDX-License-Identifier: GPL-2.0
"""What the built module says of itself: its size, and its trace events when they are off."""

import re
import subprocess

from common import Failure
from disasm import Module, tool

TRACEPOINT = re.compile(r"__tracepoint_vmx_vpid_\w+")
# The kernel patches an unconditional jump to the event in the place of the NOP.
NOP = re.compile(r"(data16 )*nop[wlq]?\b.*|xchgw? %ax, %ax")


def sizes(path):
    """The bytes of the file, and of its sections that are loaded and stay."""
    text = subprocess.run([tool("llvm-size"), "-A", path], capture_output=True, text=True,
                          check=True).stdout
    loaded = [int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", text, re.M)
              if re.match(r"\.(text|static_call\.text|data|rodata|bss)\b", name)]
    return path.stat().st_size, sum(loaded)


def trace_sites(module):
    """Where trace events are tested: the instruction at each site, from the table of jump labels.

    An entry has the place of the site, where it leads when it is on, and the event's key.
    """
    sites, place, inside = [], None, False
    lines = subprocess.run([tool("llvm-readelf"), "--wide", "-r", module.path],
                           capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        if line.startswith("Relocation section"):
            inside = "'.rela__jump_table'" in line
        row = line.split()
        if not inside or len(row) < 5 or not row[2].startswith("R_X86_64_"):
            continue
        offset, symbol = int(row[0], 16), row[4]
        if offset % 16 == 0:
            place = symbol, int(row[6], 16) if len(row) > 6 else 0
        elif offset % 16 == 8 and TRACEPOINT.match(symbol):
            sites.append((symbol, insn_at(module, *place)))
    if not sites:
        raise Failure(f"{module.path} has no site of a trace event")
    return sites


def insn_at(module, section, address):
    """The instruction at an address of a section."""
    return next(insn.text for insn in module.code[section] if insn.address == address)


def figures(path):
    """All of it, in the form of what is measured."""
    sites = trace_sites(Module(path))
    wrong = [f"{symbol}: {insn}" for symbol, insn in sites if not NOP.fullmatch(insn)]
    if wrong:
        raise Failure("a trace event that is off is more than a NOP: " + ", ".join(wrong))
    size, loaded = sizes(path)
    found = {"size_file": size, "size_loaded": loaded, "trace_sites": len(sites), "trace_off": 1}
    return {("rust", "module", name): (value, value) for name, value in found.items()}
