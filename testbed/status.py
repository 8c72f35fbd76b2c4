# SPDX-License-Identifier: GPL-2.0
"""Define the exit statuses of `vm` itself; all others are those of the command."""

USAGE = 200
NO_KERNEL = 201
NO_TOOL = 202
MISSING_FILE = 203
ENGINE = 204
NO_VMX = 205
NO_KVM = 206
NO_MODULE = 207
WARNING = 208
OOPS = 209
STALL = 210
PANIC = 211
TIMEOUT = 212
ENDED = 213

MEANING = {
    USAGE: "wrong arguments",
    NO_KERNEL: "no kernel built ('make kernel')",
    NO_TOOL: "the emulator or a tool is not installed ('make deps')",
    MISSING_FILE: "a file for the guest is missing or cannot be used there",
    ENGINE: "the emulator failed before the kernel started",
    NO_VMX: "the emulated CPU has no VMX, so KVM cannot load (see --no-kvm)",
    NO_KVM: "kvm or kvm_intel did not load",
    NO_MODULE: "the module did not load",
    WARNING: "the kernel warned (WARN, lockdep, RCU, UBSAN)",
    OOPS: "the kernel oopsed (BUG, Oops, KASAN, Rust panic)",
    STALL: "the kernel reported a stall (hung task, RCU stall, lockup)",
    PANIC: "the kernel panicked",
    TIMEOUT: "the time was up (--timeout)",
    ENDED: "the guest ended or restarted before the command had finished",
}


def table():
    """Return the statuses as lines of text."""
    return "\n".join(f"  {status}  {text}" for status, text in sorted(MEANING.items()))
