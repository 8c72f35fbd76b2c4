# SPDX-License-Identifier: GPL-2.0
"""Make tables of the figures, print and write the tables, and compare figures with bars."""

import csv
from collections import namedtuple

from common import Failure, TOP, step
from rows import OPTIONAL

RESULTS = TOP / "bench" / "results"
# A line of a table: a row with its figures; None for a figure that was not measured.
Line = namedtuple("Line", "row c rust c_median rust_median livepatch floor")
COLUMNS = ("what", "c", "rust", "ratio", "bar", "floor", "c_median", "rust_median", "livepatch")


def figures_of(table, row, figures):
    """Return (least, median) of a row by backend, less the overhead; some may be missing."""
    found = {}
    for served in table.served:
        figure = figures.get((served, table.name, row.name))
        overhead = figures.get((served, table.name, table.overhead), (0,))
        if figure and (not table.overhead or overhead[0]):
            found[served] = [value - overhead[0] for value in figure]
    return found


def of_table(table, figures):
    """Return the lines of a table; raise a Failure if a row was not measured."""
    lines, missing, nothing = [], [], (None, None)
    for row in table.rows:
        found = figures_of(table, row, figures)
        if not found and row.name.startswith(OPTIONAL):
            step(f"not on this CPU: {row.text}")
            continue
        missing += [f"{row.name} ({table.name}, {served})" for served in table.served
                    if served not in found]
        (c, c_median), (rust, rust_median) = found.get("c", nothing), found.get("rust", nothing)
        lines.append(Line(row, c, rust, c_median, rust_median,
                          found.get("livepatch", nothing)[0], found.get("bare", nothing)[0]))
    if missing:
        raise Failure(f"not measured: {', '.join(missing)}")
    # The floor of a table is C's figure of one of its rows.
    floor = [line.c for line in lines if line.row.name == table.floor]
    return [line._replace(floor=floor[0]) for line in lines] if floor else lines


def ratio(line):
    """Return Rust's figure divided by C's; None if C's figure is 0."""
    return line.rust / line.c if line.c else None


def text_of(value, width, form=""):
    """Return a value in a column, blank for None."""
    return ("" if value is None else format(value, form)).rjust(width)


def show(table, lines):
    """Print a table."""
    livepatch = any(line.livepatch is not None for line in lines)
    print(f"\n{table.text:42}{'C':>10}{'Rust':>10}{'ratio':>8}{'bar':>9}"
          f"{table.floor or '':>8}{'by livepatch' if livepatch else '':>14}".rstrip())
    print("-" * (101 if livepatch else 87))
    for line in lines:
        print((f"{line.row.text:42}{text_of(line.c, 10)}{text_of(line.rust, 10)}"
               f"{text_of(ratio(line), 8, '.3f')}{line.row.bar.text if line.row.bar else '':>9}"
               f"{text_of(line.floor, 8)}{text_of(line.livepatch, 14)}").rstrip())
    print(flush=True)


def show_spread(table, lines):
    """Print a table whose figures differ by turn: medians, and their distance from the least."""
    print(f"\n{table.text.replace('instructions', 'cycles'):42}{'C':>10}{'spread':>8}{'Rust':>10}"
          f"{'spread':>8}{'ratio':>8}")
    print("-" * 86)
    for line in lines:
        c_spread = line.c_median - line.c if line.c is not None else None
        share = line.rust_median / line.c_median if line.c_median else None
        print(f"{line.row.text:42}{text_of(line.c_median, 10)}{text_of(c_spread, 8)}"
              f"{text_of(line.rust_median, 10)}{line.rust_median - line.rust:8}"
              f"{text_of(share, 8, '.3f')}")
    print(flush=True)


def write(table, lines, machine):
    """Write a table as comma-separated values; the file's name contains `machine`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{table.name}-{machine}.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for line in lines:
            share, bar = ratio(line), line.row.bar
            writer.writerow((line.row.name, line.c, line.rust,
                             "" if share is None else f"{share:.4f}", bar.text if bar else "",
                             line.floor, line.c_median, line.rust_median, line.livepatch))
    step(f"written to {path.relative_to(TOP)}")


def above(lines, machine):
    """Return a line for each row that is above its bar."""
    found = []
    for line in lines:
        bar = line.row.bar
        if bar and line.rust > bar.limit(line.c):
            found.append(f"{line.row.name}: {line.rust}, C {line.c}, bar {bar.text} ({machine})")
    return found
