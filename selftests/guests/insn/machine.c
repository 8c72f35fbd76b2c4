// SPDX-License-Identifier: GPL-2.0
/*
 * This file makes a VM with one vCPU, whose only software is stubs for exceptions.
 */
#include "insn.h"

#define CODE64_AR	0x00af9b000000ffffull
#define DATA32_AR	0x00cf93000000ffffull
#define CODE32_AR	0x00cf9b000000ffffull

void *at(struct machine *m, u64 address)
{
	return addr_gpa2hva(m->vm, address);
}

static void add_memory(struct machine *m, u32 slot, u64 gpa, u64 size)
{
	vm_userspace_mem_region_add(m->vm, VM_MEM_SRC_ANONYMOUS, gpa, slot, size / PAGE_SIZE,
				    gpa == READ_ONLY ? KVM_MEM_READONLY : 0);
}

/* Write an OUT for each vector, which has the same bytes in every mode. */
static void write_stubs(struct machine *m)
{
	u8 *stub = at(m, STUBS);
	int vector;

	for (vector = 0; vector < 32; vector++) {
		stub[vector * 4] = 0xe6;
		stub[vector * 4 + 1] = TRAP_PORT + vector;
	}
}

static void write_gates(struct machine *m)
{
	struct idt_entry *gate64 = at(m, IDT64);
	u64 *gate32 = at(m, IDT32);
	u16 *real = at(m, 0);
	int vector;

	for (vector = 0; vector < 32; vector++) {
		u64 stub = STUBS + vector * 4;

		gate64[vector] = (struct idt_entry) {
			.offset0 = stub, .selector = 0x08, .ist = 1, .type = 14, .p = 1,
		};
		gate32[vector] = stub | 0x18 << 16 | 0x8e00ull << 32;
		real[vector * 2] = stub;
		real[vector * 2 + 1] = 0;
	}
}

static void write_descriptors(struct machine *m)
{
	u64 *gdt = at(m, GDT);

	gdt[1] = CODE64_AR;
	gdt[2] = DATA32_AR;
	gdt[3] = CODE32_AR;
	/* RSP0 and IST1 of a 64-bit TSS; ESP0 and SS0 of a 32-bit one. */
	*(u64 *)(at(m, TSS64) + 4) = FAULT_TOP;
	*(u64 *)(at(m, TSS64) + 36) = FAULT_TOP;
	*(u32 *)(at(m, TSS32) + 4) = FAULT_TOP;
	*(u32 *)(at(m, TSS32) + 8) = 0x10;
}

static void hide_invpcid(struct kvm_vcpu *vcpu)
{
	struct kvm_cpuid_entry2 *entry;

	vcpu_init_cpuid(vcpu, kvm_get_supported_cpuid());
	entry = vcpu_get_cpuid_entry(vcpu, 7);
	entry->ebx &= ~BIT(10);
	vcpu_set_cpuid(vcpu);
}

void machine_open(struct machine *m, bool invpcid)
{
	m->vm = vm_create_barebones();
	add_memory(m, 0, 0, MEMORY);
	add_memory(m, 1, TOP_FRAME, PAGE_SIZE);
	add_memory(m, 2, HIGH_MEMORY, MEMORY);
	add_memory(m, 3, READ_ONLY, 2 * PAGE_SIZE);
	/* Without unrestricted guests, KVM needs three pages for real mode. */
	vm_ioctl(m->vm, KVM_SET_TSS_ADDR, (void *)INTERNAL);
	m->vcpu = __vm_vcpu_add(m->vm, 0);
	if (invpcid)
		vcpu_init_cpuid(m->vcpu, kvm_get_supported_cpuid());
	else
		hide_invpcid(m->vcpu);
	vcpu_sregs_get(m->vcpu, &m->reset);
	write_stubs(m);
	write_gates(m);
	write_descriptors(m);
	write_page_tables(m);
	/* Code that does not wrap at 4 GiB reads this page instead of address 0. */
	memset(at(m, HIGH_MEMORY), 0x5a, PAGE_SIZE);
}

void machine_close(struct machine *m)
{
	kvm_vm_free(m->vm);
}

/*
 * Execute instructions in 64-bit mode that raise no exception, such as VMXON.  Update
 * the registers, and return RFLAGS.
 */
u64 execute(struct machine *m, const void *code, int length, struct kvm_regs *regs, u64 cr4)
{
	static const struct test mode = { .mode = LONG };
	struct kvm_sregs sregs = m->reset;
	u8 *target = at(m, CODE);

	sregs.cr4 = cr4;
	set_mode(&sregs, &mode);
	memcpy(target, code, length);
	target[length] = 0xe6;
	target[length + 1] = DONE_PORT;
	regs->rip = CODE;
	regs->rsp = STACK_TOP;
	regs->rflags = X86_EFLAGS_FIXED;
	vcpu_sregs_set(m->vcpu, &sregs);
	vcpu_regs_set(m->vcpu, regs);
	while (__vcpu_run(m->vcpu) && errno == EINTR)
		;
	TEST_ASSERT_KVM_EXIT_REASON(m->vcpu, KVM_EXIT_IO);
	vcpu_regs_get(m->vcpu, regs);
	TEST_ASSERT(m->vcpu->run->io.port == DONE_PORT, "vector %d at %lx",
		    m->vcpu->run->io.port - TRAP_PORT, *(u64 *)at(m, regs->rsp));
	return regs->rflags;
}

/* Execute an instruction of VMX whose operand, at (%rbx), is the address of a page. */
static void vmx_page(struct machine *m, const void *code, int length, u64 page)
{
	struct kvm_regs regs = { .rbx = DESC };
	u64 rflags;

	*(u64 *)at(m, DESC) = page;
	rflags = execute(m, code, length, &regs, X86_CR4_VMXE);
	TEST_ASSERT(!(rflags & ARITHMETIC), "an instruction of VMX failed, flags %lx", rflags);
}

void load_vmcs_page(struct machine *m)
{
	static const u8 vmptrld[] = { 0x0f, 0xc7, 0x33 };

	vmx_page(m, vmptrld, sizeof(vmptrld), VMCS_PAGE);
}

/* VMCLEAR: afterwards there is no current VMCS. */
void clear_vmcs_page(struct machine *m)
{
	static const u8 vmclear[] = { 0x66, 0x0f, 0xc7, 0x33 };

	vmx_page(m, vmclear, sizeof(vmclear), VMCS_PAGE);
}

void enter_vmx(struct machine *m)
{
	static const u8 vmxon[] = { 0xf3, 0x0f, 0xc7, 0x33 };
	u32 revision = vcpu_get_msr(m->vcpu, MSR_IA32_VMX_BASIC);

	vcpu_set_msr(m->vcpu, MSR_IA32_FEAT_CTL,
		     FEAT_CTL_LOCKED | FEAT_CTL_VMX_ENABLED_OUTSIDE_SMX);
	*(u32 *)at(m, VMXON_PAGE) = revision;
	*(u32 *)at(m, VMCS_PAGE) = revision;
	vmx_page(m, vmxon, sizeof(vmxon), VMXON_PAGE);
	clear_vmcs_page(m);
	load_vmcs_page(m);
	m->reset.cr4 |= X86_CR4_VMXE;
}

static u64 read_field(struct machine *m, u32 field, u64 *rflags)
{
	static const u8 vmread_rdx_rax[] = { 0x0f, 0x78, 0xc2 };
	struct kvm_regs regs = { .rax = field };

	*rflags = execute(m, vmread_rdx_rax, sizeof(vmread_rdx_rax), &regs, X86_CR4_VMXE);
	return regs.rdx;
}

/* Return the last VM-instruction error, and cause another error in its place. */
u64 vm_instruction_error(struct machine *m)
{
	u64 rflags, error;

	error = read_field(m, VM_INSTRUCTION_ERROR, &rflags);
	TEST_ASSERT(!(rflags & ARITHMETIC), "VMREAD failed, flags %lx", rflags);
	read_field(m, 0x2ffe, &rflags);
	TEST_ASSERT(rflags & X86_EFLAGS_ZF, "VMREAD of no field was accepted");
	return error;
}

/* An EPTP that a VM entry would accept: write-back, four levels. */
u64 good_eptp(void)
{
	return EPT_ROOT | 3 << 3 | 6;
}

int max_phys(struct machine *m)
{
	return vcpu_get_cpuid_entry(m->vcpu, 0x80000008)->eax & 0xff;
}
