# SPDX-License-Identifier: GPL-2.0
"""Install a module for a stock kernel, signed if the machine has a key, for modprobe to find."""

import os
import shutil
import subprocess
from pathlib import Path

from common import Failure, TOP, step

# Keys that sign modules on Debian: the user's choice, and the one that DKMS made.
KEYS = (("/var/lib/dkms/mok.key", "/var/lib/dkms/mok.pub"),)
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def key_pair():
    """Return the private key and the certificate to sign with, None if the machine has none."""
    named = [os.environ.get(name) for name in ("MODULE_KEY", "MODULE_CERT")]
    if not any(named):
        return next((pair for pair in KEYS if all(Path(name).is_file() for name in pair)), None)
    if not all(named):
        raise Failure("MODULE_KEY= and MODULE_CERT= go together: a private key, its certificate")
    pair = [Path(name).absolute() for name in named]
    for name in pair:
        if not name.is_file():
            raise Failure(f"there is no {name}: MODULE_KEY= and MODULE_CERT= name files")
    return pair


def secure_boot():
    """Return whether this machine was booted by Secure Boot."""
    try:
        with open(SECURE_BOOT, "rb") as file:
            return file.read()[-1:] == b"\1"
    except OSError:
        return False


def left_to_do(kernel, where, pair):
    """Return what the user still has to do, in one line."""
    if where.root:
        return (f"this machine does not run Debian {where.suite}: copy build/{kernel.variant}/vmx_vpid.ko "
                f"to one that runs {kernel.release}")
    load = "'modprobe vmx_vpid' loads it"
    if kernel.release != os.uname().release:
        load = f"after a reboot to {kernel.release}, {load}"
    if not secure_boot():
        return f"Secure Boot is off: {load}"
    if not pair:
        return ("Secure Boot is on and the module has no signature: make a key with "
                "'dkms generate_mok', enrol it with 'mokutil --import /var/lib/dkms/mok.pub', "
                "reboot, and run this again")
    return (f"Secure Boot is on: if the key is not enrolled yet, 'mokutil --import {pair[1]}' and "
            f"reboot; {load}")


def install(kernel, where):
    """Sign the module that was built for a kernel, and put it where modprobe looks."""
    built = TOP / "build" / kernel.variant / "vmx_vpid.ko"
    if not built.is_file():
        raise Failure(f"{built.relative_to(TOP)} is not built: run 'make stock'")
    if os.geteuid():
        raise Failure("only root can install a module")
    folder = where.path(f"/lib/modules/{kernel.release}/updates")
    if (folder / "dkms/vmx_vpid.ko").exists() or (folder / "dkms/vmx_vpid.ko.xz").exists():
        raise Failure("DKMS has installed the module for this kernel: 'dkms remove vmx_vpid/1.0 --all' "
                      "first")
    pair = key_pair()
    signed = built.with_suffix(".signed")
    shutil.copyfile(built, signed)
    if pair:
        # A signature is the last thing in the file: post-link came before.
        tool = Path(f"/lib/modules/{kernel.release}/build/scripts/sign-file")
        tool = tool if tool.exists() else kernel.tree / "scripts/sign-file"
        subprocess.run([tool, "sha256", *pair, signed], check=True)
    folder.mkdir(parents=True, exist_ok=True)
    signed.chmod(0o644)
    shutil.move(signed, folder / "vmx_vpid.ko")
    subprocess.run(where.command(["depmod", "-a", kernel.release]), check=True)
    place = f" in the chroot of {where.suite}" if where.root else ""
    step(f"installed /lib/modules/{kernel.release}/updates/vmx_vpid.ko{place}"
         f"{', signed' if pair else ''}")
    print(left_to_do(kernel, where, pair))
