// SPDX-License-Identifier: GPL-2.0

//! This module prints `vmx_vpid/asid` in debugfs: each CPU's slots, and the results of the lockstep
//! check.
//!
//! The format is stable, see Documentation/ABI/testing/debugfs-vmx-vpid.

use crate::{
    asid::{
        cpu::Cpu,
        difference::{
            Counts,
            Mismatch, //
        },
        Asid,
        ContextId,
        Features, //
    },
    kvm::{
        asid_follow,
        tlbstate::features, //
    }, //
};
use kernel::seq_file::{
    seq_print,
    SeqFile, //
};

/// Shows `asid`: the features, the slots of each CPU, the first difference on each CPU, and the
/// counts.
pub(crate) fn show(file: &SeqFile) {
    let Some(features) = features() else {
        seq_print!(file, "asids are the same on every CPU: not shown\n");
        return;
    };
    let Features { pcid, pti, invpcid } = features;
    for (name, value) in [
        ("following", asid_follow::following()),
        ("pcid", pcid),
        ("pti", pti),
        ("invpcid", invpcid),
    ] {
        seq_print!(file, "{name} {}\n", u8::from(value));
    }
    let mut sum = Counts::default();
    asid_follow::for_each(|number, view| {
        if let Some(cpu) = &view.cpu {
            show_cpu(number, cpu, features, file);
        }
        if let Some(follower) = view.follower {
            sum = sum.plus(follower.counts);
            if let Some(first) = follower.first {
                show_mismatch(number, first, file);
            }
        }
    });
    for (name, count) in sum.named() {
        seq_print!(file, "{name} {count}\n");
    }
}

/// Shows a CPU and its slots.
fn show_cpu(number: u32, cpu: &Cpu, features: Features, file: &SeqFile) {
    seq_print!(
        file,
        "cpu={number} loaded={} asid={} lazy={} next_asid={} invalidate_other={}\n",
        cpu.loaded.into_raw(),
        cpu.asid.into_raw(),
        u8::from(cpu.lazy),
        cpu.next,
        u8::from(cpu.invalidate_other)
    );
    for (asid, slot) in (0..).map_while(Asid::new).zip(cpu.slots) {
        seq_print!(
            file,
            "cpu={number} slot={} ctx_id={} tlb_gen={}",
            asid.into_raw(),
            slot.id.map_or(0, ContextId::into_raw),
            slot.tlb_gen.into_raw()
        );
        if features.pcid {
            seq_print!(file, " kpcid={}", asid.kpcid().into_raw());
        } else {
            seq_print!(file, " kpcid=-");
        }
        if features.pcid && features.pti {
            seq_print!(
                file,
                " upcid={} user_flush={}",
                asid.upcid().into_raw(),
                u8::from(cpu.user_flush.contains(asid))
            );
        } else {
            seq_print!(file, " upcid=- user_flush=-");
        }
        seq_print!(file, " current={}\n", u8::from(asid == cpu.asid));
    }
}

/// Shows the first difference between prediction and kernel on a CPU.
fn show_mismatch(number: u32, first: Mismatch, file: &SeqFile) {
    seq_print!(
        file,
        "cpu={number} mismatch={} switch={} what={} wanted={:#x} found={:#x}\n",
        first.when.name(),
        first.switch,
        first.what.name(),
        first.wanted,
        first.found
    );
}
