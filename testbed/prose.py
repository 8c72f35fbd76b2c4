# SPDX-License-Identifier: GPL-2.0
"""The words and forms that comments, documents and messages of this tree do without.

Each entry is a pattern and what to write in its place.  Documentation/style.rst has the rules that
the list stands for: a sentence has a subject that is a thing in the code, and a verb; no pronoun
without its noun; the word that the field uses.
"""

import re

WORDS = (
    (r"\banew\b", "again, retry"),
    (r"\blet(?:s|ting)? go\b", "free, release"),
    (r"\bwhoever\b", "name the caller"),
    (r"\bsomebody\b", "name the caller"),
    (r"\bmeanwhile\b", "say what happens at the same time"),
    (r"\b(?:is|are|was|were|be|been) told\b", "is notified, is reported"),
    (r"\banswers? to [`\[]", "Equivalent of"),
    (r"\bso much\b", "say how much"),
    (r"\ball the same\b", "nevertheless, still"),
    (r"\btakes? note\b", "records"),
    (r"\bcom(?:e|es|ing) across\b", "finds, visits"),
    (r"\bthose of\b[^.]*\[`", "see [`X`]"),
    (r"\bof (?:no|any) account\b", "does not count"),
    (r"\bwhat becomes of\b", "say what happens to it"),
    (r"\bthe truth\b", "the active allocator, the expected state"),
    (r"\bredeem\w*\b", "from_foreign()"),
    (r"\bleases?\b", "an owned VPID"),
    (r"\b(?:letters|alphabets?)\b", "steps, step sets"),
    (r"\bstor(?:y|ies)\b", "counterexample, regression"),
    (r"\bpromise[ds]?\b", "invalidated"),
    (r"\btally\b", "cost, counts"),
)
SAFETY = (
    (r"SAFETY: As (?:above|below|before|in|for|there|that)\b", "state the reason here"),
    (r"SAFETY: The contract of this function[.;]", "name the clause, and why it holds"),
)
# An opening comment begins with a sentence, which these words do not begin.
OPENING = re.compile(r"//! (?:What|Who|How|Where|Which|Whether|When|Why|All|Those|That)\b")

PATTERNS = [(re.compile(pattern, re.I), cure) for pattern, cure in WORDS]
PATTERNS += [(re.compile(pattern), cure) for pattern, cure in SAFETY]
TEXT = re.compile(r"\.(rs|c|h|py|sh|rst|md|toml|S|dot)$|(^|/)(Makefile|Kbuild|Kconfig|README|"
                  r"debugfs-vmx-vpid|\w[\w-]*)$")


def applies(name):
    """Whether a file is one whose prose is checked."""
    return bool(TEXT.search(name)) and name != "COPYING" and not name.endswith("prose.py")


def complaints(name, text):
    """The lines of a file that have a word of the list, with what to write instead."""
    lines = text.splitlines()
    found = [f"{name}:{number}: '{match[0]}': {cure}"
             for number, line in enumerate(lines, 1)
             for pattern, cure in PATTERNS if (match := pattern.search(line))]
    if name.endswith(".rs"):
        first = next((line for line in lines if line.startswith("//!")), "")
        if OPENING.match(first):
            found.append(f"{name}:3: the opening comment begins with no sentence: {first}")
        elif not first:
            found.append(f"{name}:1: there is no opening comment")
    return found
