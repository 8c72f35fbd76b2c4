# SPDX-License-Identifier: GPL-2.0
"""Read figures from the built module: its size, and the sites of its trace events."""

import re
import subprocess

from common import Failure
from disasm import Module, tool

TRACEPOINT = re.compile(r"__tracepoint_vmx_vpid_\w+")
# When an event is on, the kernel replaces this NOP by a jump to the event.
NOP = re.compile(r"(data16 )*nop[wlq]?\b.*|xchgw? %ax, %ax")


def sizes(path):
    """Return the bytes of the file, and of its sections that stay loaded."""
    text = subprocess.run([tool("llvm-size"), "-A", path], capture_output=True, text=True,
                          check=True).stdout
    loaded = [int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", text, re.M)
              if re.match(r"\.(text|static_call\.text|data|rodata|bss)\b", name)]
    return path.stat().st_size, sum(loaded)


def trace_sites(module):
    """Return the instruction at each site of a trace event, from the table of jump labels.

    An entry has the address of the site, the target of the jump, and the event's key.
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
    """Return the instruction at an address of a section."""
    return next(insn.text for insn in module.code[section] if insn.address == address)


def figures(path):
    """Return all figures, in the form of boot.measure()."""
    sites = trace_sites(Module(path))
    wrong = [f"{symbol}: {insn}" for symbol, insn in sites if not NOP.fullmatch(insn)]
    if wrong:
        raise Failure("a trace event that is off has more than a NOP: " + ", ".join(wrong))
    size, loaded = sizes(path)
    found = {"size_file": size, "size_loaded": loaded, "trace_sites": len(sites), "trace_off": 1}
    return {("rust", "module", name): (value, value) for name, value in found.items()}
