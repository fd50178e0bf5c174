"""The README and every page under docs: their Python runs, and what they point at is there."""

import ast
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]

FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>\S*)[^\n]*\n(?P<code>.*?)^(?P=indent)(?P=fence) *$", re.M | re.S
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)[^)]*\)")
FILE = re.compile(r"(?<![\w./-])(?P<path>(?:docs|examples|src|tests|\.ci)/[\w./-]*\w)")
HEADING = re.compile(r"^#+ +(?P<title>.+?) *#*$", re.M)


class Block(NamedTuple):
    """A fenced block of a page: its language, its code, and the line the code begins at."""

    language: str
    code: str
    line: int


def named(page: Path) -> str:
    """A page's name in a test's id."""
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


@pytest.fixture
def _logging_of_its_own() -> Iterator[None]:
    """What a page sets up for the lines of access logs ends with it."""
    access = logging.getLogger("apim_middleware.access")
    handlers, level, propagate = [*access.handlers], access.level, access.propagate
    yield
    access.handlers[:], access.propagate = handlers, propagate
    access.setLevel(level)


@every_page
@pytest.mark.usefixtures("_logging_of_its_own")
def test_its_python_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page share one namespace; an error shows the page and its line."""
    module = ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where classes of the page look for their annotations
    for block in blocks(page.read_text("utf-8")):
        if block.language == "python":
            exec(compiled(block, page), module.__dict__)


@every_page
def test_its_fences_say_what_they_hold(page: Path) -> None:
    bare = [block.line for block in blocks(page.read_text("utf-8")) if not block.language]
    assert bare == [], f"{named(page)}: write ```python, ```bash or ```text at these lines"


@every_page
def test_its_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page.read_text("utf-8"), page.parent) == []


@every_page
def test_files_it_names_are_there(page: Path) -> None:
    assert missing_files(page.read_text("utf-8"), ROOT) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, to_read = {PAGES[0]}, [PAGES[0]]
    while to_read:
        page = to_read.pop()
        for target in links(page.read_text("utf-8")):
            found = (page.parent / target.partition("#")[0]).resolve()
            if found.suffix == ".md" and found.exists() and found not in reached:
                reached.add(found)
                to_read.append(found)
    assert [named(page) for page in PAGES if page not in reached] == []


def test_an_error_shows_the_page_and_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n```python\nfine = 1\n\nassert fine == 2\n```\n")
    (block,) = blocks(page.read_text())
    with pytest.raises(AssertionError) as caught:
        exec(compiled(block, page), {})
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == (page, 6)


def test_a_dead_link_and_a_missing_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# Two words\n")
    text = "[a](there.md#two-words) [b](there.md#three) [c](gone.md) [d](https://example.org) `examples/gone.py`"
    assert dead_links(text, tmp_path) == ["there.md#three", "gone.md"]
    assert missing_files(text, tmp_path) == ["examples/gone.py"]


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order; one within a list is taken out of its indentation."""
    for match in FENCE.finditer(text):
        code = re.sub(f"^{match['indent']}", "", match["code"], flags=re.M)
        yield Block(match["language"], code, text.count("\n", 0, match.start("code")) + 1)


def compiled(block: Block, page: Path) -> object:
    """The code of a block, which believes that it stands in the page."""
    tree = ast.parse(block.code, page)
    ast.increment_lineno(tree, block.line - 1)
    return compile(tree, page, "exec", dont_inherit=True)


def links(text: str) -> list[str]:
    """Where the links of a page lead, but for other sites."""
    targets = [match["target"] for match in LINK.finditer(FENCE.sub("", text))]
    return [target for target in targets if "://" not in target and not target.startswith("mailto:")]


def dead_links(text: str, folder: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading in one."""
    return [target for target in links(text) if not leads_somewhere(target, text, folder)]


def leads_somewhere(target: str, text: str, folder: Path) -> bool:
    """Whether a link leads to a file, and to a heading in it where it names one."""
    path, _, fragment = target.partition("#")
    if path and not (folder / path).exists():
        return False
    if not fragment:
        return True
    there = (folder / path).read_text("utf-8") if path else text
    return fragment in {anchor(match["title"]) for match in HEADING.finditer(FENCE.sub("", there))}


def anchor(title: str) -> str:
    """The name by which a link finds a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def missing_files(text: str, root: Path) -> list[str]:
    """The files and folders of the project that a page names anywhere and that are not there."""
    return sorted({match["path"] for match in FILE.finditer(text) if not (root / match["path"]).exists()})
