// SPDX-License-Identifier: GPL-2.0

//! This module prints the files of `vmx_vpid/` in debugfs that have a line for each value, VPID or
//! vCPU.
//!
//! `stats` and `status` have one `name value` per line, `vpids` has one VPID and `roots` one vCPU
//! per line.  Names are stable, see Documentation/ABI/testing/debugfs-vmx-vpid.  C makes the files,
//! see [`crate::debugfs`].  [`crate::debugfs::ept`] prints the EPTs of VMs.

use crate::{
    kvm::{
        attach,
        check_vmcs::{
            self,
            VmcsCheck, //
        },
        cpu,
        mmus::{
            Line as MmuLine,
            Root, //
        },
        percpu,
        switches,
        symbols,
        vpid_holders::VpidList, //
    },
    mmu::Choice,
    phase::Phase,
    stats::{
        Counter,
        SUMS, //
    },
    vpid::{
        holders::{
            Line,
            Verdict, //
        },
        vmcs::{
            VmcsVpid, //
            VmcsVpidError,
        }, //
    }, //
};
use kernel::{
    prelude::*,
    seq_file::{
        seq_print,
        SeqFile, //
    }, //
};

/// Shows `stats`: the counters, and the VPIDs in use.
pub(crate) fn show_stats(file: &SeqFile) {
    for &counter in Counter::ALL {
        seq_print!(file, "{} {}\n", counter.name(), percpu::sum(counter));
    }
    for (name, parts) in SUMS {
        let sum = parts.iter().map(|&part| percpu::sum(part));
        seq_print!(file, "{name} {}\n", sum.fold(0, u64::wrapping_add));
    }
    match attach::status().vpids {
        Some((in_use, high_water)) => {
            seq_print!(file, "vpid_in_use {in_use}\nvpid_high_water {high_water}\n");
        }
        None => seq_print!(file, "vpid_in_use n/a\nvpid_high_water n/a\n"),
    }
}

/// Shows `status`: the state of the backend, the CPU's capabilities, and the switches.
pub(crate) fn show_status(file: &SeqFile) {
    let status = attach::status();
    let (calls, all_calls) = status.static_calls;
    let (exits, all_exits) = status.exits;
    seq_print!(file, "backend {}\n", status.backend);
    seq_print!(file, "phase {}\n", status.phase.name());
    seq_print!(file, "static_calls {calls}/{all_calls}\n");
    seq_print!(file, "exit_handlers {exits}/{all_exits}\n");
    seq_print!(file, "ept_vpid_cap {:#x}\n", cpu::caps().into_raw());
    let switches = switches::get();
    seq_print!(file, "caps_mask {:#x}\n", switches.caps_mask);
    seq_print!(file, "check_vmcs {}\n", u8::from(switches.check_vmcs));
    seq_print!(file, "flush_context {}\n", u8::from(switches.flush_context));
    seq_print!(file, "force_flush {}\n", u8::from(switches.force_flush));
    seq_print!(file, "max_vpids {}\n", switches::max_vpids());
    if status.phase == Phase::Detached {
        seq_print!(file, "{}\n", symbols::absence(status.live));
    }
}

/// Shows `vmcs`: the results of the checks of the VMCS.
pub(crate) fn show_vmcs(file: &SeqFile) {
    let checks = check_vmcs::checks();
    seq_print!(file, "looks {}\nwrong {}\n", checks.count, checks.wrong);
    show_vmcs_check("last", checks.last, file);
    show_vmcs_check("last_wrong", checks.last_wrong, file);
}

/// Shows one check, if there was one.
fn show_vmcs_check(name: &str, check: Option<VmcsCheck>, file: &SeqFile) {
    let Some(check) = check else {
        seq_print!(file, "{name} -\n");
        return;
    };
    let number = |vmcs_vpid| match vmcs_vpid {
        VmcsVpid::None => 0,
        VmcsVpid::By(vpid) => vpid.into_raw(),
    };
    let (seconds, rest) = (check.time / 1_000_000_000, check.time % 1_000_000_000);
    seq_print!(file, "{name} time={seconds}.{:06}", rest / 1000);
    match check.found {
        Ok(vmcs_vpid) => seq_print!(file, " vmcs={}", number(vmcs_vpid)),
        Err(VmcsVpidError::Invalid(number)) => seq_print!(file, " vmcs=invalid:{number:#x}"),
        Err(VmcsVpidError::Inaccessible(_)) => seq_print!(file, " vmcs=inaccessible"),
    }
    let verdict = if check.agrees() { "agrees" } else { "wrong" };
    seq_print!(file, " vcpu={}", number(check.wanted));
    seq_print!(
        file,
        " in_use={} result={verdict}\n",
        u8::from(check.in_use)
    );
}

/// Shows one line of `vpids`, by its number, counted from 0.
pub(crate) fn show_vpid_line(list: &VpidList, line: u64, file: &SeqFile) {
    match list {
        VpidList::Unknown(why) => seq_print!(file, "{}\n", why),
        VpidList::Lines(lines) => {
            if let Some((line, cpus)) = usize::try_from(line).ok().and_then(|n| lines.get(n)) {
                show_vpid(line, cpus, file);
            }
        }
    }
}

/// Shows the line of one VPID.
fn show_vpid(line: &Line, cpus: &[u32], file: &SeqFile) {
    seq_print!(file, "vpid={}", line.vpid.into_raw());
    match line.claim {
        Some(claim) => {
            let usage = if claim.l2 { "vpid02" } else { "vpid01" };
            seq_print!(file, " pid={} vcpu={} use={usage}", claim.pid, claim.vcpu);
            match claim.cpu {
                Some(cpu) => seq_print!(file, " cpu={cpu}"),
                None => seq_print!(file, " cpu=-"),
            }
        }
        None => seq_print!(file, " pid=- vcpu=- use=- cpu=-"),
    }
    let state = match line.verdict {
        Verdict::Held => "held",
        Verdict::Unclaimed => "unclaimed",
        Verdict::Double => "double",
        Verdict::Free => "free",
    };
    seq_print!(file, " state={state} flushed=");
    match cpus.split_first() {
        Some((first, rest)) => {
            seq_print!(file, "{first}");
            for cpu in rest {
                seq_print!(file, ",{cpu}");
            }
        }
        None => seq_print!(file, "-"),
    }
    seq_print!(file, "\n");
}

/// Shows `roots`: the MMU of each vCPU, and the roots that KVM keeps for the vCPU.
///
/// # Errors
///
/// [`ENOMEM`].
pub(crate) fn show_roots(file: &SeqFile) -> Result {
    match attach::mmus()? {
        Ok(lines) => {
            for (line, choice) in &lines {
                show_mmu(line, *choice, file);
            }
        }
        Err(live) => seq_print!(file, "{}\n", symbols::absence(live)),
    }
    Ok(())
}

/// Shows the line of one vCPU.
fn show_mmu(line: &MmuLine, choice: Choice, file: &SeqFile) {
    let (pid, vcpu) = line.owner();
    let guest = if line.is_in_l2() { "l2" } else { "l1" };
    let seen = line.seen();
    let set = if seen.guest_mmu {
        "guest_mmu"
    } else {
        "root_mmu"
    };
    let kvm = seen.mmu().map_or("unclear", |mmu| mmu.name());
    let agrees = if seen.agrees(choice) { "yes" } else { "no" };
    seq_print!(
        file,
        "pid={pid} vcpu={vcpu} guest={guest} mmu={}",
        choice.mmu.name()
    );
    seq_print!(
        file,
        " kvm={kvm} agrees={agrees} set={set} level={}",
        seen.level
    );
    seq_print!(file, " root=");
    match line.root() {
        Some(root) => show_root(root, file),
        None => seq_print!(file, "-"),
    }
    seq_print!(file, " prev=");
    let mut separator = "";
    for root in line.previous() {
        seq_print!(file, "{separator}");
        show_root(root, file);
        separator = ",";
    }
    if separator.is_empty() {
        seq_print!(file, "-");
    }
    match line.other() {
        Some(other) => seq_print!(file, " other={other:#x}\n"),
        None => seq_print!(file, " other=-\n"),
    }
}

/// Shows a root: its address, the CR3 or EPT pointer that the root was made for, and the PCID.
fn show_root(root: Root, file: &SeqFile) {
    match root.hpa {
        Some(hpa) => seq_print!(file, "{hpa:#x}"),
        None => seq_print!(file, "dummy"),
    }
    match root.pgd {
        Some(pgd) => seq_print!(file, ":{pgd:#x}"),
        None => seq_print!(file, ":-"),
    }
    match root.pcid {
        Some(pcid) => seq_print!(file, ":{pcid}"),
        None => seq_print!(file, ":-"),
    }
}
