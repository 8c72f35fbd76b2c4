// SPDX-License-Identifier: GPL-2.0
/*
 * This file has the cases of an operand's address, in every form.  Memory around the
 * operand is full of ones, so a read of any other address finds reserved bits.
 */
#include "groups.h"

/* A form that leads to the operand; aim() sets the registers. */
#define FORM(...)	.form = { __VA_ARGS__ }
#define GOOD(...)	FORM(__VA_ARGS__), .want = OK
#define BASED(s, b)	.shape = { .seg = (s), .base = (b) }

const struct test forms64[] = {
	{ "[rax]", GOOD(.base = AX) },
	{ "[rdx]", GOOD(.base = DX) },
	{ "[rbx]", GOOD(.base = BX) },
	{ "[rsp]", GOOD(.base = SP) },
	{ "[rbp+0]", GOOD(.base = BP, .dsize = 8) },
	{ "[rsi]", GOOD(.base = SI) },
	{ "[rdi]", GOOD(.base = DI) },
	{ "[r8]", GOOD(.base = R8) },
	{ "[r9]", GOOD(.base = R9) },
	{ "[r10]", GOOD(.base = R10) },
	{ "[r11]", GOOD(.base = R11) },
	{ "[r12]", GOOD(.base = R12) },
	{ "[r13+0]", GOOD(.base = R13, .dsize = 8) },
	{ "[r14]", GOOD(.base = R14) },
	{ "[r15]", GOOD(.base = R15) },
	{ "[rbx+0x7f]", GOOD(.base = BX, .dsize = 8, .disp = 0x7f) },
	{ "[rbx-0x80]", GOOD(.base = BX, .dsize = 8, .disp = -0x80) },
	{ "[rbp-0x10]", GOOD(.base = BP, .dsize = 8, .disp = -0x10) },
	{ "[rsp+0x40]", GOOD(.base = SP, .dsize = 8, .disp = 0x40) },
	{ "[rbx+0x12345678]", GOOD(.base = BX, .dsize = 32, .disp = 0x12345678) },
	{ "[rbx+0x7fffffff]", GOOD(.base = BX, .dsize = 32, .disp = 0x7fffffff) },
	{ "[rbx-1], 32 bits", GOOD(.base = BX, .dsize = 32, .disp = -1) },
	{ "[rbx-0x80000000]", GOOD(.base = BX, .dsize = 32, .disp = -0x7fffffff - 1) },
	{ "[rsp-0x1000]", GOOD(.base = SP, .dsize = 32, .disp = -0x1000) },
	{ "[rbx+rsi]", GOOD(.base = BX, .index = SI) },
	{ "[rbx+rsi*2]", GOOD(.base = BX, .index = SI, .shift = 1) },
	{ "[rbx+rsi*4]", GOOD(.base = BX, .index = SI, .shift = 2) },
	{ "[rbx+rsi*8]", GOOD(.base = BX, .index = SI, .shift = 3) },
	{ "[rbx+r9*8-0x20]", GOOD(.base = BX, .index = R9, .shift = 3, .dsize = 8, .disp = -32) },
	{ "[r10+r12*4+0x1000]",
	  GOOD(.base = R10, .index = R12, .shift = 2, .dsize = 32, .disp = 0x1000) },
	{ "[r13+r15*2+8]", GOOD(.base = R13, .index = R15, .shift = 1, .dsize = 8, .disp = 8) },
	{ "[rsp+rbp*8]", GOOD(.base = SP, .index = BP, .shift = 3) },
	{ "[rbp+rdi*4+0]", GOOD(.base = BP, .index = DI, .shift = 2, .dsize = 8) },
	{ "[rbx+rsi*8], negative", GOOD(.base = BX, .index = SI, .shift = 3, .step = -0x100l) },
	{ "[rbx+rsi*4], past 2^64",
	  GOOD(.base = BX, .index = SI, .shift = 2, .step = 0x4000000000000010) },
	{ "[rbx+rsi], past 2^64", GOOD(.base = BX, .index = SI, .step = 0xfffffffffffff000) },
	{ "[rsi*1+0x40]", GOOD(.index = SI, .dsize = 32, .disp = 0x40) },
	{ "[rsi*2+0]", GOOD(.index = SI, .shift = 1, .dsize = 32) },
	{ "[r14*4-0x40]", GOOD(.index = R14, .shift = 2, .dsize = 32, .disp = -0x40) },
	{ "[rax*8+0x800]", GOOD(.index = AX, .shift = 3, .dsize = 32, .disp = 0x800) },
	{ "[disp32]", GOOD(.absolute = true) },
	{ "[rip+disp32]", GOOD(.base = IP) },
	{ "[ebx]", GOOD(.asize = 32, .base = BX) },
	{ "[esp]", GOOD(.asize = 32, .base = SP) },
	{ "[ebp-8]", GOOD(.asize = 32, .base = BP, .dsize = 8, .disp = -8) },
	{ "[r12d]", GOOD(.asize = 32, .base = R12) },
	{ "[ebx+0x10000], past 4 GiB",
	  GOOD(.asize = 32, .base = BX, .dsize = 32, .disp = 0x10000) },
	{ "[ebx+0x7fffffff]", GOOD(.asize = 32, .base = BX, .dsize = 32, .disp = 0x7fffffff) },
	{ "[ebx+esi*8]", GOOD(.asize = 32, .base = BX, .index = SI, .shift = 3) },
	{ "[ebx+esi*8], past 4 GiB",
	  GOOD(.asize = 32, .base = BX, .index = SI, .shift = 3, .step = 0x3fffffff) },
	{ "[r8d+r9d*4-4]", GOOD(.asize = 32, .base = R8, .index = R9, .shift = 2, .dsize = 8,
				.disp = -4) },
	{ "[esi*4+0x100]", GOOD(.asize = 32, .index = SI, .shift = 2, .dsize = 32, .disp = 0x100) },
	{ "[disp32], 32-bit address", GOOD(.asize = 32, .absolute = true) },
	{ "[eip+disp32]", GOOD(.asize = 32, .base = IP) },
	{ "unaligned", GOOD(.base = BX), .at = DESC + 1 },
	{ "unaligned, with alignment checks", GOOD(.base = BX), .at = DESC + 9,
	  .cr0 = X86_CR0_AM, .rflags = X86_EFLAGS_AC },
	{ }
};

/* In 64-bit mode only FS and GS have a base, and no segment has a limit. */
const struct test segments64[] = {
	{ "es:, with a base", GOOD(.seg = ES), BASED(ES, 0x1000) },
	{ "cs:, with a base", GOOD(.seg = CS), BASED(CS, 0x1000) },
	{ "ss:, with a base", GOOD(.seg = SS), BASED(SS, 0x1000) },
	{ "ds:, with a base", GOOD(.seg = DS), BASED(DS, 0x1000) },
	{ "ds, with a base", GOOD(.base = BX), BASED(DS, 0x1000) },
	{ "ss by rsp, with a base", GOOD(.base = SP), BASED(SS, 0x1000) },
	{ "fs:, no base", GOOD(.seg = FS) },
	{ "gs:, no base", GOOD(.seg = GS) },
	{ "fs:, with a base", GOOD(.seg = FS), BASED(FS, 0x3000) },
	{ "gs:, with a base", GOOD(.seg = GS), BASED(GS, 0x3000) },
	{ "ds, fs has a base", GOOD(.base = BX), BASED(FS, 0x3000) },
	{ "fs:[rbp-8]", GOOD(.seg = FS, .base = BP, .dsize = 8, .disp = -8), BASED(FS, 0x3000) },
	{ "fs:[rip+disp32]", GOOD(.seg = FS, .base = IP), BASED(FS, 0x3000) },
	{ "gs:[disp32]", GOOD(.seg = GS, .absolute = true), BASED(GS, 0x3000) },
	{ "fs:, base in the upper half", GOOD(.seg = FS), BASED(FS, 0xffff800000001000) },
	{ "gs:, base above the operand", GOOD(.seg = GS), BASED(GS, 0x7fffffff0000) },
	{ "fs:[ebx], base above 4 GiB", GOOD(.seg = FS, .asize = 32), .at = WINDOW64,
	  BASED(FS, WINDOW64 - 0x1000), .place = FRAME },
	{ "gs:[ebx+disp32], base above 4 GiB", .at = WINDOW64, .place = FRAME,
	  GOOD(.seg = GS, .asize = 32, .base = BX, .dsize = 32, .disp = -0x7000),
	  BASED(GS, WINDOW64 - 0x1000) },
	{ "gs:[ebx], sum above 4 GiB", GOOD(.seg = GS, .asize = 32),
	  .at = WINDOW64, BASED(GS, WINDOW64 - 0xfffff000), .place = FRAME },
	{ "ds of limit 0", GOOD(.base = BX), .shape = { .seg = DS, .limited = true } },
	{ "fs: of limit 0", GOOD(.seg = FS), .shape = { .seg = FS, .limited = true } },
	{ "ss: of limit 0", GOOD(.seg = SS), .shape = { .seg = SS, .limited = true } },
	{ "ds, expand-down", GOOD(.base = BX), .shape = { .seg = DS, .type = 7 } },
	{ "ds, unusable", GOOD(.base = BX), .shape = { .seg = DS, .unusable = true } },
	{ "es:, unusable", GOOD(.seg = ES), .shape = { .seg = ES, .unusable = true } },
	{ "ss:, unusable", GOOD(.seg = SS), .shape = { .seg = SS, .unusable = true } },
	{ "fs:, unusable", GOOD(.seg = FS), .shape = { .seg = FS, .unusable = true } },
	{ "cs:, execute-only", GOOD(.seg = CS), .shape = { .seg = CS, .type = 9 } },
	{ }
};

#define HOLE	0x0000800000000000
#define EDGE	GAP("canonical-edge", OK)

static const struct test canonical[] = {
	{ "first of the hole", .at = HOLE, .want = GP0 },
	{ "last of the hole", .at = EDGE_HIGH - 1, .want = GP0 },
	{ "in the hole, up to its end", .at = EDGE_HIGH - 16, .want = GP0 },
	{ "in the hole, ends behind it", .at = EDGE_HIGH - 8, .want = GP0 },
	{ "only bit 63", .at = BIT_ULL(63), .want = GP0 },
	{ "only bit 48", .at = BIT_ULL(48), .want = GP0 },
	{ "only bit 56", .at = BIT_ULL(56), .want = GP0 },
	{ "bit 62 missing", .at = 0xbfff800000000000, .want = GP0 },
	{ "ss by rsp", .at = HOLE, FORM(.base = SP), .want = SS0 },
	{ "ss by rbp", .at = HOLE, FORM(.base = BP, .dsize = 8), .want = SS0 },
	{ "ss by rsp with an index", .at = HOLE, FORM(.base = SP, .index = SI), .want = SS0 },
	{ "ds by r12", .at = HOLE, FORM(.base = R12), .want = GP0 },
	{ "ds by r13", .at = HOLE, FORM(.base = R13, .dsize = 8), .want = GP0 },
	{ "ds, rbp as index", .at = HOLE, FORM(.base = BX, .index = BP), .want = GP0 },
	/* Overrides of ES, CS, SS and DS are ignored: the base register decides. */
	{ "ss:[rbx]", .at = HOLE, FORM(.seg = SS), .want = GP0 },
	{ "ss:[rbp]", .at = HOLE, FORM(.seg = SS, .base = BP, .dsize = 8), .want = SS0 },
	{ "ds:[rsp]", .at = HOLE, FORM(.seg = DS, .base = SP), .want = SS0 },
	{ "es:[rbp]", .at = HOLE, FORM(.seg = ES, .base = BP, .dsize = 8), .want = SS0 },
	{ "cs:[rbp]", .at = HOLE, FORM(.seg = CS, .base = BP, .dsize = 8), .want = SS0 },
	{ "fs:[rbp]", .at = HOLE, FORM(.seg = FS, .base = BP, .dsize = 8), .want = GP0 },
	{ "fs:, sum in the hole", .at = HOLE, FORM(.seg = FS), BASED(FS, EDGE_LOW), .want = GP0 },
	{ "gs:, address in the hole, sum not", FORM(.seg = GS), BASED(GS, 0xffff800000001000),
	  .want = OK },
	{ "fs:[ebx], sum in the hole", .at = HOLE, FORM(.seg = FS, .asize = 32),
	  BASED(FS, EDGE_LOW), .want = GP0 },
	{ "up to the hole", .at = HOLE - 16, .place = EDGE_FRAME + 0xff0, .want = OK },
	{ "behind the hole", .at = EDGE_HIGH, .place = EDGE_FRAME, .want = OK },
	{ "half in the hole", .at = HOLE - 8, .place = EDGE_FRAME + 0xff8, .want = GP0, EDGE },
	{ "one byte in the hole", .at = HOLE - 15, .place = EDGE_FRAME + 0xff1, .want = GP0, EDGE },
	{ "one byte before the hole", .at = HOLE - 1, .place = EDGE_FRAME + 0xfff, .want = GP0,
	  EDGE },
	{ "half in the hole, ss by rsp", .at = HOLE - 8, .place = EDGE_FRAME + 0xff8,
	  FORM(.base = SP), .want = SS0, EDGE },
	{ "half in the hole, ss:[rbx]", .at = HOLE - 8, .place = EDGE_FRAME + 0xff8,
	  FORM(.seg = SS), .want = GP0, EDGE },
	{ "half in the hole, fs:", .at = HOLE - 8, .place = EDGE_FRAME + 0xff8,
	  FORM(.seg = FS), BASED(FS, 0x1000), .want = GP0, EDGE },
	{ "at the very end, not present", .at = -8ull, .want = PF(0) },
	{ }
};

/* 32-bit code, with addresses of 32 bits. */
const struct test forms32[] = {
	{ "[eax]", GOOD(.base = AX) },
	{ "[ebx]", GOOD(.base = BX) },
	{ "[esp]", GOOD(.base = SP) },
	{ "[ebp+0]", GOOD(.base = BP, .dsize = 8) },
	{ "[esi+0x7f]", GOOD(.base = SI, .dsize = 8, .disp = 0x7f) },
	{ "[edi-0x80]", GOOD(.base = DI, .dsize = 8, .disp = -0x80) },
	{ "[ebx+0x12345678], past 4 GiB", GOOD(.base = BX, .dsize = 32, .disp = 0x12345678) },
	{ "[ebx-0x80000000]", GOOD(.base = BX, .dsize = 32, .disp = -0x7fffffff - 1) },
	{ "[ebx+esi]", GOOD(.base = BX, .index = SI) },
	{ "[ebx+esi*2]", GOOD(.base = BX, .index = SI, .shift = 1) },
	{ "[ebx+edi*4-4]", GOOD(.base = BX, .index = DI, .shift = 2, .dsize = 8, .disp = -4) },
	{ "[ebx+ebp*8]", GOOD(.base = BX, .index = BP, .shift = 3) },
	{ "[esp+edi*8], past 4 GiB",
	  GOOD(.base = SP, .index = DI, .shift = 3, .step = 0x3fffffff) },
	{ "[ebp+esi*4+0x1000]",
	  GOOD(.base = BP, .index = SI, .shift = 2, .dsize = 32, .disp = 0x1000) },
	{ "[esi*4+0x40]", GOOD(.index = SI, .shift = 2, .dsize = 32, .disp = 0x40) },
	{ "[disp32]", GOOD(.absolute = true) },
	{ "es:", GOOD(.seg = ES), BASED(ES, 0x1000) },
	{ "cs:", GOOD(.seg = CS), BASED(CS, 0x1000) },
	{ "ss:", GOOD(.seg = SS), BASED(SS, 0x1000) },
	{ "ds:", GOOD(.seg = DS), BASED(DS, 0x1000) },
	{ "fs:", GOOD(.seg = FS), BASED(FS, 0x1000) },
	{ "gs:", GOOD(.seg = GS), BASED(GS, 0x1000) },
	{ "ds by ebx", GOOD(.base = BX), BASED(DS, 0x2000) },
	{ "ss by esp", GOOD(.base = SP), BASED(SS, 0x2000) },
	{ "ss by ebp", GOOD(.base = BP, .dsize = 8), BASED(SS, 0x2000) },
	{ "ds, ebp as index", GOOD(.base = BX, .index = BP), BASED(SS, 0x2000) },
	{ "ds:[ebp]", GOOD(.seg = DS, .base = BP, .dsize = 8), BASED(DS, 0x2000) },
	{ "ds, base above the operand", GOOD(.base = BX), BASED(DS, 0xfffff000) },
	{ "fs:, base above the operand", GOOD(.seg = FS), BASED(FS, 0x80000000) },
	{ "ss:, base above the operand", GOOD(.base = SP), BASED(SS, 0xfffff000) },
	{ }
};

/* Addresses of 16 bits, in 32-bit code and in 16-bit code. */
const struct test forms16[] = {
	{ "[bx+si]", GOOD(.asize = 16, .base = BX, .index = SI) },
	{ "[bx+di]", GOOD(.asize = 16, .base = BX, .index = DI) },
	{ "[bp+si]", GOOD(.asize = 16, .base = BP, .index = SI) },
	{ "[bp+di]", GOOD(.asize = 16, .base = BP, .index = DI) },
	{ "[si]", GOOD(.asize = 16, .base = SI) },
	{ "[di]", GOOD(.asize = 16, .base = DI) },
	{ "[bx]", GOOD(.asize = 16, .base = BX) },
	{ "[disp16]", GOOD(.asize = 16, .absolute = true) },
	{ "[bx+si+0x7f]",
	  GOOD(.asize = 16, .base = BX, .index = SI, .dsize = 8, .disp = 0x7f) },
	{ "[bx+di-0x80]",
	  GOOD(.asize = 16, .base = BX, .index = DI, .dsize = 8, .disp = -0x80) },
	{ "[bp-0x10]", GOOD(.asize = 16, .base = BP, .dsize = 8, .disp = -0x10) },
	{ "[si+0x7fff]", GOOD(.asize = 16, .base = SI, .dsize = 16, .disp = 0x7fff) },
	{ "[di-0x8000]", GOOD(.asize = 16, .base = DI, .dsize = 16, .disp = -0x8000) },
	{ "[bx-0x7000], past 64 KiB",
	  GOOD(.asize = 16, .base = BX, .dsize = 16, .disp = -0x7000) },
	{ "[bx+si], past 64 KiB",
	  GOOD(.asize = 16, .base = BX, .index = SI, .step = 0xf000) },
	{ "[bp+di-1], past 64 KiB", GOOD(.asize = 16, .base = BP, .index = DI, .step = 0xc000,
					 .dsize = 8, .disp = -1) },
	{ "[bp+si+0x1000], ss has a base", BASED(SS, 0x1000),
	  GOOD(.asize = 16, .base = BP, .index = SI, .dsize = 16, .disp = 0x1000) },
	{ "[bx+si], ds has a base", GOOD(.asize = 16, .base = BX, .index = SI),
	  BASED(DS, 0x1000) },
	{ "es:[bp]", GOOD(.asize = 16, .seg = ES, .base = BP, .dsize = 8), BASED(ES, 0x1000) },
	{ "fs:[disp16]", GOOD(.asize = 16, .seg = FS, .absolute = true), BASED(FS, 0x2000) },
	{ "the last byte is beyond 64 KiB", GOOD(.asize = 16, .base = BX), .at = 0xfff8 },
	{ "sum above 64 KiB", GOOD(.asize = 16, .base = BX), BASED(DS, 0x8000), .at = 0x10000 },
	{ }
};

static const struct test forms32_in_16[] = {
	{ "[ebx]", GOOD(.asize = 32, .base = BX) },
	{ "[ebp+esi*4+8]",
	  GOOD(.asize = 32, .base = BP, .index = SI, .shift = 2, .dsize = 8, .disp = 8) },
	{ "[eax-0x7fffffff]", GOOD(.asize = 32, .base = AX, .dsize = 32, .disp = -0x7fffffff) },
	{ "[disp32]", GOOD(.asize = 32, .absolute = true) },
	{ "[ebx], above 64 KiB", GOOD(.asize = 32, .base = BX), .at = FRAME },
	{ }
};

static void address(struct machine *m, enum op insn)
{
	try_all(m, insn, forms64);
	try_all(m, insn, segments64);
	try_all(m, insn, canonical);
	in_mode(m, insn, PROT32, forms32);
	in_mode(m, insn, PROT32, forms16);
	in_mode(m, insn, PROT16, forms16);
	in_mode(m, insn, PROT16, forms32_in_16);
}

void invpcid_address(struct machine *m)
{
	address(m, INVPCID);
}

void invvpid_address(struct machine *m)
{
	address(m, INVVPID);
}

void invept_address(struct machine *m)
{
	address(m, INVEPT);
}
