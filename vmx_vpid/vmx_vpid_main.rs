// SPDX-License-Identifier: GPL-2.0

//! vmx_vpid takes over KVM's layer of tagged translations on Intel, in Rust.
//!
//! The module replaces the functions of kvm_intel that allocate VPIDs, decide which instruction
//! serves a TLB flush request, and handle six kinds of exit.  The module attaches by livepatch, to
//! running guests too, and returns the functions to the C code when the module is disabled.  This
//! file only loads and unloads the module.
//!
//! Documentation/overview.rst explains the terms ("Glossary"), and says which file may import which
//! ("Layers").

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
        compat::{
            copied,
            not_supported,
            Flag, //
        },
        ops::Native, //
    }, //
};
use kernel::prelude::*;

/// Declares the module; `$flag` is the type of the parameters that are on or off.
macro_rules! declare_module {
    ($flag:ident, $off:tt) => {
        module! {
            type: Module,
            name: "vmx_vpid",
            authors: ["The vmx_vpid developers"],
            description: "VPID and TLB invalidation of KVM on Intel, in Rust",
            license: "GPL",
            params: {
                force_flush: $flag {
                    default: $off,
                    description: "Serve every request by the widest flush (finds a missing flush)",
                },
                flush_context: $flag {
                    default: $off,
                    description: "Serve flush_tlb_all by a flush of the contexts in use",
                },
                caps_mask: u64 {
                    default: 0,
                    description: "Bits of IA32_VMX_EPT_VPID_CAP to treat as clear (25, 40, 41, 42)",
                },
                max_vpids: u16 {
                    default: 65535,
                    description: "VPIDs that the pool may allocate, 1 to 65535 (for tests)",
                },
            },
        }
    };
}

#[cfg(vmx_vpid_linux_7_3)]
declare_module!(bool, false);
#[cfg(not(vmx_vpid_linux_7_3))]
declare_module!(u8, 0);

/// The loaded module.
///
/// Rust drops the fields in the order of their declaration: first the files in debugfs disappear,
/// then the module stops following the host's ASIDs, then the attachment unregisters the backend.
#[pin_data]
struct Module {
    files: Files,
    asids: Asids,
    attachment: Attachment<Native>,
}

impl Module {
    /// Checks that the module was post-linked and that the CPU can flush by VPID, and applies the
    /// parameters.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] without VMX, [`EOPNOTSUPP`] without VPIDs that can be invalidated, [`ENOEXEC`] if
    /// the module lacks its livepatch relocations or was built for another kernel, [`EINVAL`] for
    /// an invalid parameter.
    fn probe() -> Result {
        if !kvm::post_linked() {
            pr_err!("not post-linked: build with 'make modules', or run 'objtool klp post-link'\n");
            return Err(ENOEXEC);
        }
        kvm::check_kernel()?;
        kvm::cpu::probe().inspect_err(|_| {
            pr_err!("this CPU has no VMX, or the firmware has it off: KVM cannot run here\n")
        })?;
        if !kvm::cpu::caps().can_flush_vpid() {
            pr_err!("this CPU cannot invalidate by VPID: there is nothing to take over\n");
            return Err(not_supported());
        }
        kvm::switches::set_up(
            Switches {
                force_flush: module_parameters::force_flush.value().is_on(),
                flush_context: module_parameters::flush_context.value().is_on(),
                caps_mask: copied(module_parameters::caps_mask.value()),
                check_vmcs: false,
            },
            copied(module_parameters::max_vpids.value()),
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
