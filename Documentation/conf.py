# SPDX-License-Identifier: GPL-2.0
"""Sphinx's configuration: make htmldocs builds the documents with it."""

# pylint: disable=invalid-name,redefined-builtin

project = "vmx_vpid"
author = "The vmx_vpid developers"
copyright = author
root_doc = "index"
html_theme = "alabaster"
html_theme_options = {"page_width": "65em", "description": "KVM's VPIDs and TLB flushes, in Rust"}
html_show_copyright = False
html_copy_source = False
exclude_patterns = ["ABI"]
# Literal blocks are shell commands and output, without highlighting.
highlight_language = "none"
