"""What the server shows, and what it must not."""

import http.client
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coopmap.config import ConfigError
from coopmap.config.serve import ServeConfig
from coopmap.serving.server import build_server

from ..html_elements import Elements

Get = Callable[..., tuple[int, dict[str, str], str]]
NAMES = ("<script>alert(1)</script>", "a \"quoted\" 'name'", "größe & 車")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of reports beside a secret."""
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "runs_old").mkdir()
    (tmp_path / "runs_old" / "secret.txt").write_text("secret")
    root = tmp_path / "runs"
    (root / "a" / "evaluation").mkdir(parents=True)
    (root / "a" / "evaluation" / "report.html").write_text("<h1>report</h1>")
    (root / "a" / "metrics.csv").write_text("step\n1\n")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("hidden")
    (root / "wandb").mkdir()
    (root / "wandb" / "page.html").write_text("of a library")
    for name in NAMES:
        (root / name.replace("/", "-")).mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "hidden.txt").symlink_to(root / ".git" / "config")
    (root / "in.csv").symlink_to(root / "a" / "metrics.csv")
    (root / "circle").symlink_to(root / "circle")
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def get(tree: Path) -> Iterator[Get]:
    with build_server(tree) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

        def ask(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()

        yield ask
        server.shutdown()


def test_it_listens_on_this_machine_alone(tree: Path) -> None:
    with build_server(tree) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_reports_are_listed_and_served(get: Get) -> None:
    status, headers, text = get("/")
    assert status == 200
    links = Elements(text).addresses()
    assert "./a/evaluation/report.html" in links
    assert "./a/" in links
    assert "of a library" not in text
    assert "wandb/page.html" not in text
    status, headers, text = get("/a/evaluation/report.html")
    assert (status, text) == (200, "<h1>report</h1>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert get("/favicon.ico")[0] == 204  # nothing for the browser to complain about
    assert get("/in.csv")[2] == "step\n1\n"  # a link that stays inside
    status, headers, text = get("/a/metrics.csv", "HEAD")
    assert (status, headers["Content-Length"], text) == (200, "7", "")


def test_a_folder_without_its_slash_is_redirected_within_the_server(get: Get) -> None:
    assert get("/a")[0] == 301
    assert get("/a")[1]["Location"] == "/a/"
    assert get("//a")[1].get("Location", "/").startswith("/a") or get("//a")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/a/../../secret.txt",
        "/a/%2e%2e%2f%2e%2e%2fsecret.txt",
        "/../runs_old/secret.txt",
        "/out/secret.txt",
        "/out/",
        "/out.txt",
        "/hidden.txt",
        "/.git/config",
        "/.git/",
        "/circle",
        "/pipe",
        "/%00",
        "/%ff",
        "/nothing",
        "/a/metrics.csv/x",
        "//etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1/../secret.txt",
    ],
)
def test_nothing_outside_and_nothing_hidden_is_shown(get: Get, path: str) -> None:
    status, _, text = get(path)
    assert status == 404
    assert "secret" not in text.replace("secret.txt", "")


def test_listings_do_not_name_what_is_not_shown(get: Get) -> None:
    links = " ".join(Elements(get("/")[2]).addresses())
    for name in ("out", "out.txt", "hidden.txt", ".git", "circle", "pipe"):
        assert f"./{name} " not in f"{links} "
        assert f"./{name}/" not in links


def test_names_are_text(get: Get) -> None:
    text = get("/")[2]
    assert "<script>alert" not in text
    links = [link for link in Elements(text).addresses() if link.endswith("/") and link != "../"]
    assert len(links) == 4 + 1  # wandb/ is a folder like any other
    for link in links:
        status, _, page = get(link.removeprefix("."))
        assert status == 200
        assert "<script>alert" not in page
    assert "größe &amp; 車" in text


def test_other_methods_and_other_hosts_are_refused(get: Get) -> None:
    assert get("/", "POST")[0] == 501
    assert get("/", "PUT")[0] == 501
    assert get("/", Host="evil.example")[0] == 403
    assert get("/", Host="localhost:9999")[0] == 200  # the other end of a tunnel
    assert get("/", Host="127.0.0.1")[0] == 200


def test_the_command_says_where_and_how_to_get_there(tree: Path) -> None:
    command = [sys.executable, "-m", "coopmap.serve", str(tree), "port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", lines[0])
            assert found is not None
            assert re.search(rf"ssh -N -L {found[1]}:127\.0\.0\.1:{found[1]} \S+@\S+", lines[2])
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=10)
            connection.request("GET", "/a/metrics.csv")
            assert connection.getresponse().read() == b"step\n1\n"
        finally:
            process.terminate()


def test_a_taken_port_and_a_missing_folder_are_named(tree: Path) -> None:
    with build_server(tree) as server, pytest.raises(ConfigError, match=f"port={server.server_port}: .*port=0"):
        build_server(tree, server.server_port)
    with pytest.raises(ConfigError, match="folder=nowhere: there is no such folder"):
        ServeConfig(folder=["nowhere"])
    with pytest.raises(ConfigError, match="give one folder"):
        ServeConfig(folder=[])


def test_a_file_that_changes_while_it_is_sent_neither_spoils_nor_holds_the_connection(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tree / "a" / "metrics.csv"
    changed = {"grown": 100, "shrunk": 2}
    announced = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        facts = announced(descriptor)
        if changes:
            os.truncate(file, changed[changes.pop()])
        return facts

    changes: list[str] = []
    with build_server(tree) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        monkeypatch.setattr("coopmap.serving.server.os.fstat", fstat)
        changes.append("grown")
        connection.request("GET", "/a/metrics.csv")
        assert connection.getresponse().read() == b"step\n1\n"
        connection.request("GET", "/in.csv")  # on the same connection
        assert len(connection.getresponse().read()) == 100
        changes.append("shrunk")
        connection.request("GET", "/a/metrics.csv")
        with pytest.raises(http.client.IncompleteRead):
            connection.getresponse().read()
        server.shutdown()


def test_a_reader_that_goes_away_is_no_error(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (tree / "large.csv").open("wb") as stream:
        stream.truncate(50_000_000)
    with build_server(tree) as server:
        server.daemon_threads = False  # closing waits for them
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with socket.create_connection(("127.0.0.1", server.server_port)) as reader:
            reader.sendall(b"GET /large.csv HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert reader.recv(100).startswith(b"HTTP/1.1 200")
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # resets the connection
        server.shutdown()
    assert capfd.readouterr().err == ""


def test_a_folder_that_may_not_be_read_is_answered(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Iterator[Path]:
        raise PermissionError

    monkeypatch.setattr("coopmap.serving.paths.Path.iterdir", refuse)  # root may read everything
    status, _, text = get("/a/")
    assert status == 403
    assert "may not be read" in text


def test_names_that_are_not_utf8_lead_to_their_files(get: Get, tree: Path) -> None:
    (tree / os.fsdecode(b"caf\xe9.csv")).write_text("1")
    (tree / os.fsdecode(b"d\xe9")).mkdir()
    links = Elements(get("/")[2]).addresses()
    assert {"./caf%E9.csv", "./d%E9/"} <= set(links)
    assert get("/caf%E9.csv")[::2] == (200, "1")
    assert get("/d%E9/")[0] == 200
    assert get("/d%E9")[1]["Location"] == "/d%E9/"


def test_a_listing_says_how_many_pages_it_leaves_out(get: Get, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopmap.serving.paths.MOST_PAGES", 2)
    assert "older ones" not in get("/a/")[2]
    for number in range(4):
        (tree / "a" / f"{number}.html").touch()
    assert "and 3 older ones" in get("/a/")[2]
