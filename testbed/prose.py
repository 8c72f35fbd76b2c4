# SPDX-License-Identifier: GPL-2.0
"""Find the words that comments, documents and messages of this tree must not contain.

Each entry is a pattern and its replacement.  Documentation/style.rst has the rules behind the list:
a sentence has a verb, and a subject that is a thing in the code; a pronoun has its noun in the same
sentence; each thing has the word that kernel developers use.
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
    (r"(?:SAFETY|INVARIANT|CAST): As (?:above|below|before|in|for|there|that)\b",
     "state the reason here"),
    (r"SAFETY: The contract of this function\b", "name the clause, and why it holds"),
    (r"SAFETY: By the contract\b", "name the clause, and why it holds"),
)
# These words do not begin a sentence, and an opening comment begins with a sentence.
OPENING = re.compile(r"//! (?:What|Who|How|Where|Which|Whether|When|Why|All|Those|That)\b")
# In C the comment after the licence names its subject in one way, so that a verb follows.
OPENING_C = re.compile(r".* SPDX-.*\n/\*(?:\n \*)? "
                       r"This (?:file|guest|header|module|program) [a-z]+s\b")

PATTERNS = [(re.compile(pattern, re.I), cure) for pattern, cure in WORDS]
PATTERNS += [(re.compile(pattern), cure) for pattern, cure in SAFETY]
TEXT = re.compile(r"\.(rs|c|h|py|sh|rst|md|toml|S|dot)$|(^|/)(Makefile|Kbuild|Kconfig|README|"
                  r"debugfs-vmx-vpid|\w[\w-]*)$")


# The marker of a comment, at the start of a line.  A "*" goes on where a "/*" began.
MARKER = re.compile(r"\s*(//[/!]?|#(?!!)|/\*{1,2}(?!/)|\*(?!\S))?\s*")
BEGIN = ("/*", "/**")


def applies(name):
    """Return whether the prose of a file is checked."""
    return bool(TEXT.search(name)) and name != "COPYING" and not name.endswith("prose.py")


def paragraphs(lines):
    """Join lines that follow each other in one comment, or in no comment, by a space.

    Return for each paragraph the text without markers, and (offset, line number) for each line.
    """
    found, last = [], None
    for number, line in enumerate(lines, 1):
        match = MARKER.match(line)
        marker, text = match[1], line[match.end():].rstrip()
        if not text:
            last = None
            continue
        kind = "*" if marker in BEGIN else marker or "none"
        if kind == last and marker not in BEGIN:
            before, starts = found[-1]
            starts.append((len(before) + 1, number))
            found[-1] = (f"{before} {text}", starts)
        else:
            found.append((text, [(0, number)]))
        last = kind
    return found


def complaints(name, text):
    """Return a line for each word of the list in a file, with the replacement."""
    lines = text.splitlines()
    hits = sorted((max(at for offset, at in starts if offset <= match.start()), match[0], cure)
                  for joined, starts in paragraphs(lines)
                  for pattern, cure in PATTERNS for match in pattern.finditer(joined))
    found = [f"{name}:{number}: '{word}': {cure}" for number, word, cure in hits]
    if name.endswith(".rs"):
        first = next((line for line in lines if line.startswith("//!")), "")
        if OPENING.match(first):
            found.append(f"{name}:3: the opening comment begins with no sentence: {first}")
        elif not first:
            found.append(f"{name}:1: there is no opening comment")
    if name.endswith((".c", ".h")) and not OPENING_C.match(text):
        found.append(f"{name}:2: the opening comment does not begin with 'This file', 'header', "
                     "'module', 'program' or 'guest' and a verb")
    return found
