# SPDX-License-Identifier: GPL-2.0
"""Install a module for a stock kernel, signed if the machine has a key, for modprobe to find."""

import os
import subprocess

from common import Failure, TOP, step

# Keys that sign modules on Debian: the user's choice, and the one that DKMS made.
KEYS = (("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"),)
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def key_pair(where):
    """The private key and the certificate to sign with, None if the machine has none."""
    named = os.environ.get("MODULE_KEY"), os.environ.get("MODULE_CERT")
    if any(named):
        if not all(named):
            raise Failure("MODULE_KEY= and MODULE_CERT= go together: a private key, its certificate")
        missing = [name for name in named if not where.path(name).is_file()]
        if missing:
            raise Failure(f"there is no {missing[0]}: MODULE_KEY= and MODULE_CERT= name files")
        return named
    return next((pair for pair in KEYS if all(where.path(name).is_file() for name in pair)), None)


def secure_boot():
    """Whether this machine was booted by Secure Boot."""
    try:
        with open(SECURE_BOOT, "rb") as file:
            return file.read()[-1:] == b"\1"
    except OSError:
        return False


def left_to_do(signed, certificate):
    """What the user still has to do, in one line."""
    if not secure_boot():
        return "Secure Boot is off: load it with 'modprobe vmx_vpid'"
    if not signed:
        return ("Secure Boot is on and the module has no signature: make a key with "
                "'dkms generate_mok', enrol it with 'mokutil --import /var/lib/dkms/mok.pub', "
                "reboot, and run this again")
    return (f"Secure Boot is on: if the key is not enrolled yet, 'mokutil --import {certificate}' and "
            "reboot; then 'modprobe vmx_vpid'")


def install(kernel, where):
    """Sign the module that was built for a kernel, and put it where modprobe looks."""
    built = TOP / "build" / kernel.variant / "vmx_vpid.ko"
    if not built.is_file():
        raise Failure(f"{built.relative_to(TOP)} is not built: run 'make stock'")
    if os.geteuid():
        raise Failure("a module is installed by root")
    pair = key_pair(where)
    target = f"/lib/modules/{kernel.release}/updates/vmx_vpid.ko"
    where.path(target).parent.mkdir(parents=True, exist_ok=True)
    words = ["install", "-m", "644", built, target]
    subprocess.run(where.command(words), check=True)
    if pair:
        # A signature is the last thing in the file: post-link came before.
        sign = [kernel.tree / "scripts/sign-file", "sha256", *pair, target]
        subprocess.run(where.command(sign), check=True)
    subprocess.run(where.command(["depmod", "-a", kernel.release]), check=True)
    place = f" in the chroot of {where.suite}" if where.root else ""
    step(f"installed {target}{place}{', signed' if pair else ''}")
    print(left_to_do(bool(pair), pair and pair[1]))
