"""Runs the commands of the tutorial's pages and puts what they printed below them: python3 docs/run.py [PAGE.md …]

A page is Markdown. In its blocks marked `console`, lines that begin with `$ ` are commands, and everything else is their
output, written by this program. Pages run in the order of README.md's list, from the root of the repository, with
target/release first in PATH. All pages together start without runs/docs. Standard library only.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
FIRST, LAST = 14, 10  # lines kept of a long output


def pages() -> list[Path]:
    """As README.md lists them."""
    names = re.findall(r"\]\((\w[\w-]*\.md)\)", (DOCS / "README.md").read_text())
    return [DOCS / name for name in names]


def printed(command: str) -> list[str]:
    """What a command printed, with its exit code where that isn't 0."""
    path = f"{ROOT / 'target/release'}:{os.environ['PATH']}"
    found = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "COLUMNS": "110"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = found.stdout.replace(f"{ROOT}/", "").splitlines()
    lines = [line.rstrip() for line in lines]
    if len(lines) > FIRST + LAST + 1:
        lines = [*lines[:FIRST], "…", *lines[-LAST:]]
    return lines + ([f"(exit code {found.returncode})"] if found.returncode else [])


def renewed(page: str) -> str:
    """The page with the outputs of now."""
    lines, inside = [], False
    for line in page.splitlines():
        if inside and line.startswith("$ "):
            lines.append(line)
            lines.extend(printed(line[2:]))
        elif line.startswith("```"):
            inside = line == "```console"
            lines.append(line)
        elif not inside:
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    asked = [Path(name).resolve() for name in sys.argv[1:]]
    if not asked:
        # What is there already would be said in place of what a first run says.
        shutil.rmtree(ROOT / "runs/docs", ignore_errors=True)
    for page in asked or pages():
        print(page.relative_to(ROOT), file=sys.stderr)
        page.write_text(renewed(page.read_text()))
