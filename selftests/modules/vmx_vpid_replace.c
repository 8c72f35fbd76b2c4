// SPDX-License-Identifier: GPL-2.0
/*
 * This module is a cumulative livepatch, for test_load.sh.  A cumulative livepatch
 * replaces all other livepatches without a call of their callbacks, so the kernel has
 * to refuse this one while vmx_vpid is attached.
 */
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int replaced_cmdline(struct seq_file *file, void *data)
{
	seq_puts(file, "replaced by vmx_vpid_replace\n");
	return 0;
}

static struct klp_func funcs[] = {
	{ .old_name = "cmdline_proc_show", .new_func = replaced_cmdline },
	{ }
};

static struct klp_object objs[] = {
	{ .funcs = funcs },
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
	.replace = true,
};

static int __init replace_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit replace_exit(void)
{
}

module_init(replace_init);
module_exit(replace_exit);
MODULE_DESCRIPTION("A cumulative livepatch, to be refused");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
MODULE_INFO(test, "Y");
