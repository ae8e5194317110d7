# SPDX-License-Identifier: GPL-3.0-or-later
"""The document of record: read back as written, written whole or not at all, never over what is not ours."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from facts_rows import USES, build, busy_document
from hypothesis import given

from whoneeds.facts import files, store
from whoneeds.facts.files import FileChange, apply_change
from whoneeds.model.errors import FactsError


@given(USES)
def test_what_is_written_is_read_back(uses: Any) -> None:
    """A document survives being written and read, and is one from top to bottom."""
    document = build(service_uses=uses)
    text = store.render(document)
    assert text.isascii()
    assert store.check_document(json.loads(text), "it") == document


def written(path: Path, document: Any) -> Path:
    """The document, written as a run would."""
    apply_change(store.plan(document, path))
    return path


def test_the_file_is_whole_private_and_alone(tmp_path: Path) -> None:
    """The written file has the mode of facts, nothing temporary lies beside it, and it reads back equal."""
    path = written(tmp_path / "new" / "facts.json", busy_document())
    assert store.read(path) == busy_document()
    assert path.stat().st_mode & 0o777 == files.FILE_MODE
    assert path.parent.stat().st_mode & 0o777 == files.FOLDER_MODE
    assert [there.name for there in path.parent.iterdir()] == ["facts.json"]


def _damage(part: str, value: Any) -> Any:
    """The busy document with another value in one place; a path of steps separated by dots."""
    document = copy.deepcopy(busy_document())
    place: Any = document
    *steps, last = part.split(".")
    for step in steps:
        place = place[int(step) if isinstance(place, list) else step]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "expected a JSON object; found"),
        ({}, "kind; expected whoneeds-facts; found None"),
        (_damage("kind", "other"), "kind; expected whoneeds-facts; found 'other'"),
        (_damage("schema", 2), "schema; expected 1; found 2; publish anew"),
        (_damage("schema", "1"), "schema; expected 1; found '1'"),
        (_damage("schema", True), "schema; expected 1; found True"),
        (_damage("method", "guess"), "method; expected macroscope or evidence; found 'guess'"),
        (_damage("hosts", []), "hosts; expected a JSON object"),
        (_damage("hosts", {"../x": {}}), "host name; expected letters"),
        (_damage("hosts.web1", {}), "web1; expected the sections addresses"),
        (_damage("hosts.web1.extra", 1), "web1; expected the sections addresses"),
        (_damage("hosts.web1.runs", "nginx"), "runs; expected a list"),
        (_damage("hosts.web1.runs", [{"__ansible_unsafe": "x"}]), "runs; expected short strings"),
        (_damage("hosts.web1.groups", ["all"]), "groups; expected names that begin whoneeds_; found 'all'"),
        (_damage("hosts.web1.needs", {}), "needs; expected a list"),
        (_damage("hosts.web1.needs", [1]), "needs; expected JSON objects"),
        (_damage("hosts.web1.needs.0.port", "80"), "column port; expected int64; found '80'"),
        (_damage("hosts.web1.needs.0.app", "x" * 65), "column app; expected string of at most 64"),
        (_damage("hosts.web1.needs.0.kind", "maybe"), "column kind; expected static or transient"),
        (_damage("hosts.web1.needs.0.more", 1), "more"),
        (_damage("hosts.web1.coverage.gaps", ["x" * 256]), "column gaps"),
    ],
)
def test_what_is_no_facts_document_is_refused(tmp_path: Path, document: Any, told: str) -> None:
    """Each kind of damage is named with its place, what should be there, what was found and what to do."""
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FactsError, match=f"facts.json.*{told}") as refused:
        store.read(path)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "expected JSON"),
        (b'{"schema": 1, "ki', "expected JSON"),
        (b'{"kind": "\xff\xfe"}', "expected JSON.*utf-8"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b"[" * 100_000, "expected JSON"),
        (b"\x00" * 10, "expected JSON"),
    ],
)
def test_bytes_that_are_no_json_are_refused(tmp_path: Path, content: bytes, told: str) -> None:
    """Empty, cut, non-UTF-8, non-finite and bottomless files are refused on reading and not overwritten on writing."""
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(FactsError, match=told):
        store.read(path)
    with pytest.raises(FactsError, match=told):
        store.plan(busy_document(), path)
    assert path.read_bytes() == content


def test_a_missing_document_says_what_to_run(tmp_path: Path) -> None:
    """Reading where nothing lies names the command that makes it."""
    with pytest.raises(FactsError, match="no such file; run discover first"):
        store.read(tmp_path / "facts.json")


@pytest.mark.parametrize("content", ['{"all": {"hosts": {}}}', "[1]", '{"kind": "whoneeds-facts", "schema": 2}'])
def test_what_is_not_ours_is_not_overwritten(tmp_path: Path, content: str) -> None:
    """A foreign JSON file and a document of a newer schema stay as they are."""
    path = tmp_path / "facts.json"
    path.write_text(content)
    with pytest.raises(FactsError, match="is not ours to overwrite"):
        store.plan(busy_document(), path)
    assert path.read_text() == content


def test_an_oversized_document_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is larger than the limit is neither written nor read, however large it is."""
    path = written(tmp_path / "facts.json", busy_document())
    monkeypatch.setattr(store, "STORE_LIMIT_BYTES", 100)
    with pytest.raises(FactsError, match="too large; expected at most 100 bytes"):
        store.read(path)
    with pytest.raises(FactsError, match="publish fewer hosts"):
        store.render(busy_document())
    monkeypatch.undo()
    with path.open("r+b") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(
        FactsError, match=f"too large; expected at most {store.STORE_LIMIT_BYTES} bytes; found {1 << 40}"
    ):
        store.read(path)


def _make_folder(path: Path) -> None:
    path.mkdir()


def _make_link(path: Path) -> None:
    path.with_name("target").write_text("mine")
    path.symlink_to(path.with_name("target"))


def _make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (_make_folder, "found a folder"),
        (_make_link, "found a symbolic link"),
        (_make_dangling_link, "found a symbolic link"),
        (os.mkfifo, "found something else"),
    ],
)
def test_what_is_no_plain_file_is_neither_read_nor_replaced(tmp_path: Path, make: Any, found: str) -> None:
    """A folder, a link or a pipe in the place of the document is refused, whatever it leads to stays, nothing hangs."""
    path = tmp_path / "facts.json"
    make(path)
    before = sorted((there.name, there.is_symlink()) for there in tmp_path.iterdir())
    with pytest.raises(FactsError, match=f"expected a plain file; {found}"):
        store.read(path)
    with pytest.raises(FactsError, match=f"expected a plain file; {found}"):
        store.plan(busy_document(), path)
    assert sorted((there.name, there.is_symlink()) for there in tmp_path.iterdir()) == before
    assert not (tmp_path / "target").exists() or (tmp_path / "target").read_text() == "mine"


def test_refusing_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """Refusing a folder many times does not use up the process's descriptors."""
    (tmp_path / "facts.json").mkdir()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a folder of the kernel's
    for _ in range(20):
        with pytest.raises(FactsError):
            store.read(tmp_path / "facts.json")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_an_unreadable_document_says_why(tmp_path: Path) -> None:
    """Without permission to read, the system's own word and what to do are told."""
    path = written(tmp_path / "facts.json", busy_document())
    path.chmod(0)
    tmp_path.chmod(0o755)
    code = (
        "import os, sys; sys.path[:0] = sys.argv[2].split(':')\n"
        "from pathlib import Path; from whoneeds.facts import store\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "store.read(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), ":".join(sys.path)], capture_output=True, text=True, check=False
    )
    assert "cannot be read; found Permission denied; check its path and permissions" in done.stderr, done.stderr


def test_a_failing_check_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the new file is refused before it takes its place, the old one stays and nothing temporary remains."""
    path = written(tmp_path / "facts.json", busy_document())

    def refuse(_: Path) -> None:
        raise FactsError("no")

    with pytest.raises(FactsError, match="no"):
        apply_change(FileChange(path, path.read_text(), "{}"), refuse)
    assert store.read(path) == busy_document()
    assert [there.name for there in tmp_path.iterdir()] == ["facts.json"]


LIMITED = """
import resource, sys
sys.path[:0] = sys.argv[2].split(":")
from pathlib import Path
from whoneeds.facts.files import FileChange, apply_change
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
apply_change(FileChange(Path(sys.argv[1]), "old", "x" * 5000))
"""


def test_where_the_system_refuses_to_write_the_old_file_stays(tmp_path: Path) -> None:
    """A file that the system cuts short does not take the old one's place, and what to look at is told."""
    path = tmp_path / "facts.json"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), ":".join(sys.path)], capture_output=True, text=True, check=False
    )
    assert "cannot be written; found File too large; check its folder and free space" in done.stderr, done.stderr
    assert path.read_text() == "old"
    assert [there.name for there in tmp_path.iterdir()] == ["facts.json"]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Where a file stands in the place of the document's folder, planning already refuses."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FactsError, match="cannot be read; found Not a directory; check its path"):
        store.plan(busy_document(), tmp_path / "file" / "facts.json")


KILLED = """
import sys
sys.path[:0] = sys.argv[2].split(":")
from pathlib import Path
from whoneeds.facts.files import FileChange, apply_change
path = Path(sys.argv[1])
print("ready", flush=True)
while True:
    for letter in "ab":
        apply_change(FileChange(path, None, letter * 3_000_000))
"""


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """A writer that is killed at any moment leaves one whole file, and the next run is not disturbed by its remains."""
    path = tmp_path / "facts.json"
    for moment in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), ":".join(sys.path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            try:
                writer.wait(0.05 + moment * 0.013)
            except subprocess.TimeoutExpired:
                writer.send_signal(signal.SIGKILL)
        if path.exists():
            content = path.read_text()
            assert content in ("a" * 3_000_000, "b" * 3_000_000)
    apply_change(FileChange(path, None, "c"))
    assert path.read_text() == "c"
