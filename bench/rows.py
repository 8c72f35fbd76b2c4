# SPDX-License-Identifier: GPL-2.0
"""Define the tables of the measurements, with their rows and bars."""

from collections import namedtuple

from common import build_tree, config_of

# The upper limit of Rust's figure: a function of C's figure, and its text.
Bar = namedtuple("Bar", "limit text")
# A row: its name in a sample line, its text, its bar or None.
Row = namedtuple("Row", "name text bar")
# A table: `overhead` names the row that is subtracted from each figure; `floor` names the row or
# backend whose figure is in the column "floor"; each row needs a figure of each backend in
# `served`; `boot` is the number of the boot that measures the table.
Table = namedtuple("Table", "name text rows overhead floor served boot")


def of_c(ratio):
    """Return a bar: C's figure times a ratio."""
    return Bar(lambda c: c * ratio, f"{ratio:.2f} C")


def above_c(number):
    """Return a bar: C's figure plus a number."""
    return Bar(lambda c: c + number, f"C+{number}")


def at_most(number):
    """Return a bar: a number."""
    return Bar(lambda c: number, str(number))


CPUID = Row("cpuid", "CPUID, the bare exit", None)

ROUNDTRIP = (
    CPUID,
    Row("invlpg", "INVLPG", of_c(1.02)),
    Row("invpcid_0", "INVPCID type 0, address", of_c(0.70)),
    Row("invpcid_1", "INVPCID type 1, context", of_c(0.70)),
    Row("invpcid_2", "INVPCID type 2, all and globals", of_c(0.70)),
    Row("invpcid_3", "INVPCID type 3, all", of_c(0.70)),
    Row("invpcid_0_pcide", "INVPCID type 0, CR4.PCIDE set", None),
    Row("invpcid_1_pcide", "INVPCID type 1, CR4.PCIDE set", None),
    Row("invpcid_2_pcide", "INVPCID type 2, CR4.PCIDE set", None),
    Row("invpcid_3_pcide", "INVPCID type 3, CR4.PCIDE set", None),
    Row("mov_cr3", "MOV CR3, reload", None),
)

NESTED = (
    CPUID,
    Row("invvpid_0", "L1's INVVPID type 0, address", None),
    Row("invvpid_1", "L1's INVVPID type 1, context", None),
    Row("invvpid_2", "L1's INVVPID type 2, all", None),
    Row("invvpid_3", "L1's INVVPID type 3, keeps globals", None),
    Row("invept_1", "L1's INVEPT type 1, context", None),
    Row("invept_2", "L1's INVEPT type 2, all", None),
)


def retpolines():
    """Return whether the measured kernel has retpolines, as the testbed's kernel has."""
    config = build_tree() / ".config"
    return not config.exists() or "CONFIG_MITIGATION_RETPOLINE" in config_of(config)


# With retpolines KVM calls the handler of misconfigurations by its name, so livepatch adds to the
# cost.
MMIO = above_c(80) if retpolines() else of_c(1.00)
MEMORY = (
    CPUID,
    Row("violation_held", "EPT violation, the host has the page", of_c(1.00)),
    Row("violation_fresh", "EPT violation, the host has no page", of_c(1.00)),
    Row("mmio_fast", "MMIO, ioeventfd of any length", MMIO),
    Row("mmio_length", "MMIO, ioeventfd of 4 bytes", MMIO),
)

IN_USE = (("0", "0 in use"), ("1", "1 in use"), ("1024", "1,024 in use"),
          ("16384", "16,384 in use"), ("32768", "32,768 in use"), ("65000", "65,000 in use"),
          ("65534", "65,534 in use"), ("65535", "65,535 in use"),
          ("worst", "the most expensive call"))
VPID = tuple(Row(f"{what}_{name}", f"{what}_vpid(), {text}", at_most(60))
             for what in ("allocate", "free") for name, text in IN_USE
             if (what, name) != ("free", "65535"))

FLUSH = tuple(Row(f"flush_{op}_ept{ept}", f"flush_tlb_{op}(), ept={ept}", above_c(10))
              for ept in (1, 0) for op in ("all", "current", "gva", "guest"))
# C has no policy flush_context=1, so these rows have no bar.
APART = tuple(Row(row.name, f"{row.text}, flush_context=1", None) for row in FLUSH)

LIVES = tuple(Row(f"{what}_{number}", f"{what} {number:,} vCPU{'s' * (number > 1)}", None)
              for what in ("create", "destroy") for number in (1, 10, 100, 1000))

MOVES = tuple(Row(f"{extent}_ept{ept}{policy}", f"ept={ept}{text}: {what}",
                  at_most(0) if (extent, policy) == ("all", "_apart") else None)
              for ept in (1, 0) for policy, text in (("", ""), ("_apart", ", flush_context=1"))
              for extent, what in (("all", "all contexts"), ("context", "one context"),
                                   ("address", "one address")))

# With cached roots, most of the cost is KVM's own work on its roots, so these rows have no bar.
ROUNDTRIP += tuple(Row(f"invpcid_{kind}_roots", f"INVPCID type {kind}, 3 roots cached", None)
                   for kind in range(4))
ROUNDTRIP += (Row("mov_cr3_roots", "MOV CR3, to a cached root", None),)

COMPAT = tuple(Row(row.name, f"{row.text}, 32-bit", row.bar) for row in ROUNDTRIP[:6])

MODULE = (
    Row("attach_load", "load_module(), waits included", None),
    Row("attach_patch", "of that, klp_enable_patch()", None),
    Row("attach_pre_patch", "of that, the module's pre_patch", None),
    Row("attach_transition", "attempts to end the transition", None),
    Row("attach_post_patch", "of that, the module's post_patch", None),
    Row("detach_pre_unpatch", "detach: the module's pre_unpatch", None),
    Row("detach_transition", "detach: attempts to end the transition", None),
    Row("detach_post_unpatch", "of that, the module's post_unpatch", None),
    Row("memory_code", "code and data in /proc/modules, bytes", None),
    Row("memory_vmalloc", "attached: growth of VmallocUsed, KiB", None),
    Row("memory_percpu", "attached: growth of Percpu, KiB", None),
    Row("memory_slab", "attached: growth of Slab, KiB", None),
    Row("size_file", "vmx_vpid.ko, bytes", None),
    Row("size_loaded", "of that, code and data, bytes", None),
    Row("trace_sites", "sites of trace events in Rust", None),
    Row("trace_off", "instructions of a site that is off", at_most(6)),
)

BOTH = ("c", "rust")
TABLES = (
    Table("roundtrip", "guest round trip, ept=0, instructions",
          ROUNDTRIP, "nothing", "cpuid", BOTH, 1),
    Table("compat", "guest round trip, ept=0, instructions",
          COMPAT, "nothing", "cpuid", BOTH, 1),
    Table("nested", "guest round trip, L1 on ept=1, instructions",
          NESTED, "nothing", "cpuid", BOTH, 1),
    Table("memory", "guest round trip, ept=1, instructions",
          MEMORY, "nothing", "cpuid", BOTH, 1),
    Table("vpid", "the function itself, instructions",
          VPID, None, None, (*BOTH, "livepatch"), 1),
    Table("flush", "the function itself, instructions",
          FLUSH, None, "bare", (*BOTH, "livepatch", "bare"), 1),
    Table("apart", "the function itself, instructions", APART, None, "bare", ("rust", "bare"), 1),
    Table("lives", "vCPUs of one VM, ticks of user space", LIVES, None, None, BOTH, 1),
    Table("module", "the module; attach and detach in ticks", MODULE, None, None, ("rust",), 1),
    Table("moves", "1,000 moves between 2 CPUs, invalidations", MOVES, None, None, BOTH, 2),
)
# Rows with these names need a feature that a CPU may lack.
OPTIONAL = ("invpcid_",)
