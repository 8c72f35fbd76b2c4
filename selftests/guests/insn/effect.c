// SPDX-License-Identifier: GPL-2.0
/*
 * This file writes code before and after an instruction, so that the guest sees the
 * effect: the guest reads a page, changes its page-table entry, executes the
 * instruction, and reads the page again.
 *
 * The code uses only one register, RAX, and absolute addresses in a segment that the
 * case does not use.
 */
#include "insn.h"

#define ENTRY_BITS	3	/* present, writable */

static u8 *emit(u8 *code, const void *bytes, int count)
{
	memcpy(code, bytes, count);
	return code + count;
}

/* MOV between EAX and memory at an absolute address. */
static u8 *move(u8 *code, const struct test *test, u8 opcode, u64 address)
{
	if (test->mode == PROT16)
		code = emit(code, "\x66\x67", 2);
	*code++ = test->shape.seg == ES ? 0x65 : 0x26;
	*code++ = opcode;
	return emit(code, &address, test->mode == LONG ? 8 : 4);
}

static u8 *load(u8 *code, const struct test *test, u64 address)
{
	return move(code, test, 0xa1, address);
}

/* Store a word, which stays in EAX. */
u8 *store(u8 *code, const struct test *test, u64 address, u32 word)
{
	if (test->mode == PROT16)
		*code++ = 0x66;
	*code++ = 0xb8;
	code = emit(code, &word, 4);
	return move(code, test, 0xa3, address);
}

/* Store the lower half of the window's page-table entry. */
static u8 *store_entry(struct machine *m, u8 *code, const struct test *test, u32 frame)
{
	u64 *entry = entry_of(m, paging_of(test), WINDOW, PT);

	return store(code, test, addr_hva2gpa(m->vm, entry), frame | ENTRY_BITS);
}

/* Map the first frame, read from the window, and map the second frame. */
u8 *before(struct machine *m, u8 *code, const struct test *test)
{
	static const u8 reload_cr3[] = { 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8 };

	memset(at(m, FRAME), 0x11, PAGE_SIZE);
	memset(at(m, FRAME2), 0x22, PAGE_SIZE);
	code = store_entry(m, code, test, FRAME);
	code = emit(code, reload_cr3, sizeof(reload_cr3));
	code = load(code, test, WINDOW);
	return store_entry(m, code, test, FRAME2);
}

/* Read from the window: RAX has the value of FRAME2 if the translation was dropped. */
u8 *after(u8 *code, const struct test *test)
{
	return load(code, test, WINDOW);
}
