# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation points at is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "roles").glob("*/README.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
PATH = re.compile(r"`((?:docs|tests|roles|playbooks|plugins|inventories|python_lib)/[\w./-]+)`")
SOURCES = [path for folder in ("python_lib/src", "plugins", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link of a page to another file, and every path it names, is there."""
    text = page.read_text()
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    missing += [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    assert not missing


def test_pages_that_code_names_exist() -> None:
    """A page that a docstring sends its reader to is there."""
    named = {(path, page) for path in SOURCES for page in re.findall(r"docs/[\w/-]+\.md", path.read_text())}
    assert [(str(path), page) for path, page in sorted(named) if not (ROOT / page).exists()] == []


def test_every_page_can_be_found_from_the_readme() -> None:
    """A newcomer reaches each page of the documentation by links from the README."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        waiting += [(page.parent / link).resolve() for link in LINK.findall(page.read_text())]
    alone = set((ROOT / "docs").rglob("*.md")) - seen
    assert {str(page.relative_to(ROOT)) for page in alone} == set()
