"""Law 8: imports point downward only, through the rooms in the order that docs/architecture.md gives; `import fullrank`
and `fullrank --help` stay light; files stay small and name no machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "fullrank"
MOST_LINES = 400
# Single files of the package's own folder: the room each is part of.
LOOSE = {"__init__": "schema", "__main__": "cli", "commands": "cli", "config_json": "schema"}
LOOSE |= {"schema_checks": "schema", "schema_toml": "schema"}


def order_of_rooms(page: str) -> list[set[str]]:
    """The rooms from top to bottom; those in braces are one set."""
    chain = re.search(r"`(cli → [^`]*)`", page)
    assert chain, "docs/architecture.md gives no order of rooms: `cli → … → schema`"
    return [set(re.findall(r"\w+", step)) for step in chain.group(1).split("→")]


ORDER = order_of_rooms((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import of the package, wherever it stands (in functions too)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: expected an absolute import, got a relative one"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "fullrank")


def room_of(dotted: str) -> str | None:
    """The room that a dotted name leads to; None for names of `fullrank` itself (`__version__`)."""
    inside = dotted.split(".")[1] if "." in dotted else "__init__"
    if inside in LOOSE:
        return LOOSE[inside]
    is_module = (SOURCE / inside).is_dir() or (SOURCE / f"{inside}.py").is_file()
    return inside if is_module or any(inside in rooms for rooms in ORDER) else None


def floor_of(room: str) -> int:
    floors = [floor for floor, rooms in enumerate(ORDER) if room in rooms]
    assert floors, f"docs/architecture.md does not place the room {room!r}: {ORDER}"
    return floors[0]


def violations(source: str, importer: str, file: str) -> list[str]:
    """What the source of the module `importer` imports against the order."""
    own = room_of(importer)
    assert own
    found = []
    for line, name in imported(source):
        other = room_of(name)
        if other is None and name != "fullrank" and name.split(".")[1] != "__version__":
            found.append(f"{file}:{line}: {own} imports {name} from the package's face: import it from its room")
        if other is None or other == own:
            continue
        if floor_of(other) < floor_of(own):
            found.append(f"{file}:{line}: {own} imports {name}, but {other} is above {own}: imports point downward")
        elif floor_of(other) == floor_of(own):
            found.append(f"{file}:{line}: {own} imports {name}, but {other} is a sibling of {own}")
    return found


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def test_imports_point_downward_only() -> None:
    found = []
    for path in modules():
        file = path.relative_to(ROOT).as_posix()
        dotted = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        if dotted != "fullrank.__init__":  # the face stands before all rooms and holds names of theirs
            found += violations(path.read_text(encoding="utf-8"), dotted, file)
    assert not found, "\n" + "\n".join(found)
    assert len(modules()) > 10


@pytest.mark.parametrize(
    ("importer", "source", "verdict"),
    [
        ("fullrank.data.loader", "from fullrank.schema import Schema", ""),
        ("fullrank.cli", "from fullrank.commands.prepare import main\nfrom fullrank import __version__", ""),
        ("fullrank.commands.train", "import fullrank.recipes.train", ""),
        ("fullrank.rankers.dcnv2", "from fullrank.rankers.base import Ranker", ""),
        ("fullrank.data.loader", "x = 1\nimport fullrank.rankers.dcnv2", "f.py:2: data imports fullrank.rankers.dcnv2"),
        ("fullrank.data.loader", "def f():\n    from fullrank import rankers", "rankers is above data"),
        ("fullrank.training.loop", "from fullrank.evaluation.metrics import auc", "evaluation is a sibling of"),
        ("fullrank.recipes.demo", "from fullrank.commands.demo import main", "cli is above recipes"),
        ("fullrank.schema", "from fullrank.data import keys", "data is above schema"),
    ],
)
def test_the_law_sees_what_it_forbids(importer: str, source: str, verdict: str) -> None:
    found = violations(source, importer, "f.py")
    assert len(found) == bool(verdict)
    assert not verdict or verdict in found[0]


def test_a_room_that_the_plan_does_not_name_is_an_error() -> None:
    with pytest.raises(AssertionError, match="does not place the room 'cellar'"):
        floor_of("cellar")
    assert order_of_rooms("x `cli → {a, b} → schema` y") == [{"cli"}, {"a", "b"}, {"schema"}]


HEAVY = ("torch", "pyarrow", "matplotlib", "sklearn", "tyro", "tqdm", "numpy")


@pytest.mark.parametrize(
    "program",
    [
        "import fullrank, fullrank.schema, fullrank.schema_toml",
        "from fullrank.cli import main; assert main(['--help']) == 0",
        "from fullrank.cli import main; assert main(['prepar']) == 2",
    ],
)
def test_the_door_is_light(program: str) -> None:
    check = f"import sys; print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{program}; {check}"], capture_output=True, text=True, check=True)
    loaded = done.stderr.splitlines()[-1]
    assert loaded == "", f"{program!r} imports {loaded}"


def test_files_are_small() -> None:
    """A file that grows past this holds more than one concept."""
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("src", "tests", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    long = {name: length for name, length in lengths.items() if length > MOST_LINES}
    assert not long, f"Expected at most {MOST_LINES} lines a file, got {long}"


def test_nothing_names_a_machine() -> None:
    """Paths of the machine it was written on, and hosts of package registries, are nobody else's."""
    machine = re.compile(r"/work\b|/tmp\b|/root\b|/home/\w|shared/data|py" + r"pi\.org|pythonhosted|npmjs")
    texts = [*modules(), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "pyproject.toml"]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if machine.search(line)
    ]
    assert not found, "\n" + "\n".join(found)
