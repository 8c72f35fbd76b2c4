// SPDX-License-Identifier: GPL-2.0
/*
 * The files under vmx_vpid/ in debugfs.
 *
 * The kernel crate's files have no owner: the module could be unloaded while
 * one is open, and closing it would then run freed code.  DEFINE_SHOW_ATTRIBUTE()
 * names the module, so that an open file keeps it loaded.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include "vmx_vpid.h"

static int stats_show(struct seq_file *file, void *data)
{
	vmx_vpid_show_stats(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int status_show(struct seq_file *file, void *data)
{
	vmx_vpid_show_status(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(status);

static struct dentry *dir;

void vmx_vpid_debugfs_create(void)
{
	dir = debugfs_create_dir("vmx_vpid", NULL);
	debugfs_create_file("stats", 0400, dir, NULL, &stats_fops);
	debugfs_create_file("status", 0400, dir, NULL, &status_fops);
}

void vmx_vpid_debugfs_remove(void)
{
	debugfs_remove(dir);
}
