// SPDX-License-Identifier: GPL-2.0

//! vmx_vpid takes over KVM's layer of tagged translations on Intel, in Rust.
//!
//! The module replaces the functions of kvm_intel that allocate VPIDs and decide which instruction
//! invalidates what.  It attaches by livepatch, to running guests too, and returns the functions to
//! the C code when it is disabled.  This file only loads and unloads it.
//!
//! Documentation/overview.rst explains the words used throughout ("Glossary"), and which file may
//! import which ("Layers").

mod asid;
mod backend;
mod bindings;
mod debugfs;
mod ept;
mod exits;
mod flush;
mod invvpid;
mod kvm;
mod mmu;
mod paging;
mod phase;
mod stats;
mod vmx;
mod vpid;
mod x86;

use crate::{
    debugfs::Files,
    flush::policy::Switches,
    kvm::{
        asid_follow::Asids,
        attach::Attachment,
        ops::Native, //
    }, //
};
use kernel::prelude::*;

module! {
    type: Module,
    name: "vmx_vpid",
    authors: ["The vmx_vpid developers"],
    description: "VPID and TLB invalidation of KVM on Intel, in Rust",
    license: "GPL",
    params: {
        force_flush: bool {
            default: false,
            description: "Answer every request with the widest flush (to find a missing one)",
        },
        flush_context: bool {
            default: false,
            description: "Answer flush_tlb_all by the contexts that the vCPU can use",
        },
        caps_mask: u64 {
            default: 0,
            description: "Bits of IA32_VMX_EPT_VPID_CAP to take for missing (25, 40, 41, 42)",
        },
        max_vpids: u16 {
            default: 65535,
            description: "VPIDs that may be given out, 1 to 65535 (for tests)",
        },
    },
}

/// The loaded module.
///
/// Fields are dropped in the order of their declaration: first nobody reads any more, then the
/// host's ASIDs are not followed any more, then the backend is taken out.
#[pin_data]
struct Module {
    files: Files,
    asids: Asids,
    attachment: Attachment<Native>,
}

impl Module {
    /// Checks that the CPU is one that this module has something to do on, and takes the
    /// parameters.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] without VMX, [`EOPNOTSUPP`] without VPIDs that can be invalidated, [`ENOEXEC`]
    /// when the module lacks its livepatch relocations, [`EINVAL`] for a parameter that makes no
    /// sense.
    fn probe() -> Result {
        if !kvm::post_linked() {
            pr_err!("not post-linked: build with 'make modules', or run 'objtool klp post-link'\n");
            return Err(ENOEXEC);
        }
        kvm::cpu::probe().inspect_err(|_| {
            pr_err!("this CPU has no VMX, or the firmware has it off: KVM cannot run here\n")
        })?;
        if !kvm::cpu::caps().can_flush_vpid() {
            pr_err!("this CPU cannot invalidate by VPID: there is nothing to take over\n");
            return Err(EOPNOTSUPP);
        }
        kvm::switches::set_up(
            Switches {
                force_flush: module_parameters::force_flush.value(),
                flush_context: module_parameters::flush_context.value(),
                caps_mask: module_parameters::caps_mask.value(),
                check_vmcs: false,
            },
            module_parameters::max_vpids.value(),
        )
    }
}

impl kernel::InPlaceModule for Module {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            attachment: Self::probe().and_then(|()| Attachment::new())?,
            asids: Asids::new(),
            files: Files::new(),
        }? Error)
        .pin_chain(|this| {
            this.attachment.enable()?;
            this.files.create();
            Ok(())
        })
    }
}
