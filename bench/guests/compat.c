// SPDX-License-Identifier: GPL-2.0
/*
 * This guest measures the exits of roundtrip.c from compatibility mode, in which an
 * operand has a 32-bit address in a segment.
 *
 * The host sets RIP to each piece of code.  The code measures without a stack, and ends
 * by an exit to user space.
 *
 * Usage: compat [-t TURNS]
 */
#include "measure.h"

/* EBX: the operand's address; EBP: the type; EDI: the turns; ESI: the next sample. */
#define CODE32(name, code)						\
static __attribute__((naked)) void name##32(void)			\
{									\
	asm(".code32\n"							\
	    "1: lfence; rdtsc; lfence\n"				\
	    "mov %eax, (%esi)\n"					\
	    code "\n"							\
	    "lfence; rdtsc; lfence\n"					\
	    "sub (%esi), %eax\n"					\
	    "mov %eax, (%esi)\n"					\
	    "add $4, %esi\n"						\
	    "dec %edi\n"						\
	    "jnz 1b\n"							\
	    "out %al, $0x99\n"						\
	    ".code64\n");						\
}

CODE32(nothing, "")
CODE32(cpuid, "xor %eax, %eax; cpuid")
CODE32(invlpg, "invlpg (%ebx)")
CODE32(invpcid, "invpcid (%ebx), %ebp")

static const struct piece {
	const char *name;
	void (*code)(void);
	u64 type;
} pieces[] = {
	{ "nothing", nothing32 },
	{ "cpuid", cpuid32 },
	{ "invlpg", invlpg32 },
	{ "invpcid_0", invpcid32, 0 },
	{ "invpcid_1", invpcid32, 1 },
	{ "invpcid_2", invpcid32, 2 },
	{ "invpcid_3", invpcid32, 3 },
};

static u32 ticks[MAX_TURNS];

/* The operand of INVPCID: PCID 0, and a mapped address. */
static struct {
	u64 pcid;
	u64 address;
} operand __aligned(16);

/* The guest executes no 64-bit code. */
static void guest_code(void)
{
	GUEST_DONE();
}

static void run(struct kvm_vm *vm, struct kvm_vcpu *vcpu, const struct piece *piece)
{
	struct kvm_regs regs = {
		.rip = (u64)piece->code,
		.rflags = X86_EFLAGS_FIXED,
		.rbx = (u64)&operand,
		.rbp = piece->type,
		.rdi = turns,
		.rsi = (u64)ticks,
	};
	u64 i;

	vcpu_regs_set(vcpu, &regs);
	vcpu_run(vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(vcpu, KVM_EXIT_IO);
	sync_global_from_guest(vm, ticks);
	for (i = 0; i < turns; i++)
		samples[i] = ticks[i];
	sort_samples(turns);
	printf("%s %lu %lu\n", piece->name, (unsigned long)samples[0],
	       (unsigned long)samples[turns / 2]);
}

int main(int argc, char **argv)
{
	struct kvm_vcpu *vcpu;
	struct kvm_sregs sregs;
	struct kvm_vm *vm;
	int i;

	parse_turns(argc, argv);
	vm = vm_create_with_one_vcpu(&vcpu, guest_code);
	vcpu_sregs_get(vcpu, &sregs);
	sregs.cs.l = 0;
	sregs.cs.db = 1;
	vcpu_sregs_set(vcpu, &sregs);
	operand.address = (u64)&operand;
	sync_global_to_guest(vm, operand);

	for (i = 0; i < ARRAY_SIZE(pieces); i++)
		if (pieces[i].code != invpcid32 || kvm_cpu_has(X86_FEATURE_INVPCID))
			run(vm, vcpu, &pieces[i]);
	kvm_vm_free(vm);
	return 0;
}
