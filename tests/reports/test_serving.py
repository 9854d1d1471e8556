"""`spqr view`: pages on this machine, nothing outside of their folder, to nobody else."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from spqr_checks.cli.main import main
from spqr_checks.errors import UserError
from spqr_checks.reports.serving import pages, report_of, server

SECRET = "not for browsers"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "reports"
    (root / "one").mkdir(parents=True)
    (root / "report.html").write_text("the page")
    (root / "one" / "leaderboard.html").write_text("ranked")
    (root / "scorecard.json").write_text("{}")
    (tmp_path / "secret").write_text(SECRET)
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "out").symlink_to(tmp_path)
    (root / "indexed").mkdir()
    (root / "indexed" / "index.html").symlink_to(tmp_path / "secret")
    (root / "old").mkdir()
    (root / "old" / "index.htm").symlink_to(tmp_path / "secret")
    return root


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    with server(folder, pages(folder)) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert serving.server_address[0] == "127.0.0.1"
        yield int(serving.server_address[1])
        serving.shutdown()
        thread.join()


def ask(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_pages_and_what_lies_beside_them_are_served_and_listed(port: int) -> None:
    assert ask(port, "/report.html") == (200, "the page")
    assert ask(port, "/scorecard.json") == (200, "{}")
    status, listed = ask(port, "/")
    assert status == 200
    assert 'href="report.html"' in listed
    assert 'href="one/leaderboard.html"' in listed


@pytest.mark.parametrize(
    "path",
    [
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/one/../../secret",
        "//../secret",
        "/link",
        "/out/secret",
        "/one/",
        "/one",
        "/indexed/",
        "/indexed",
        "/indexed/index.html",
        "/old/",
    ],
)
def test_nothing_outside_and_no_listing(port: int, path: str) -> None:
    status, said = ask(port, path)
    assert SECRET not in said
    assert status in (301, 400, 404)
    assert "leaderboard.html" not in said


def test_a_page_of_elsewhere_that_names_this_machine_gets_nothing(port: int) -> None:
    assert ask(port, "/report.html", host="evil.example:80")[0] == 403
    for host in ("localhost.evil.example", "evil.example", "", "127.0.0.1@evil.example", ":80"):
        assert ask(port, "/report.html", host=host)[0] == 403, host
    for host in (f"localhost:{port}", "localhost", "127.0.0.1", "LOCALHOST:80", f"[::1]:{port}"):
        assert ask(port, "/report.html", host=host)[0] == 200, host
    assert ask(port, "/report.html", method="POST")[0] == 501


def test_one_page_is_shown_at_once(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("the page")
    with server(tmp_path, pages(tmp_path)) as serving:
        thread = threading.Thread(target=serving.handle_request)
        thread.start()
        connection = http.client.HTTPConnection(*serving.server_address[:2], timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().getheader("Location") == "/report.html"
        thread.join()


def test_no_folder_no_page_and_a_port_in_use_are_said(
    tmp_path: Path, port: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(folder), "--port", str(port)], "in use"),
        ([str(folder), "--port", "70000"], "leave it out"),
    ):
        assert main(["view", *arguments]) == 4
        assert said in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="none of report.html"):
        pages(tmp_path / "empty")


def test_allure_s_results_need_its_command_and_its_report_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    assert report_of(results, tmp_path) is None
    labels = [
        {"name": f"spqr.{n}", "value": v} for n, v in (("language", "en"), ("state", "aligned"))
    ]
    (results / "1-result.json").write_text(json.dumps({"name": "cell", "labels": labels}))
    (results / "2-result.json").write_text('{"labels": [7]}')
    (results / "3-result.json").write_text("[]")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match="install it"):
        report_of(results, tmp_path)
    ran = tmp_path / "ran"
    theirs = f'import {{ writeFileSync }} from "fs"; writeFileSync({json.dumps(str(ran))}, "");'
    for name in ("allurerc.mjs", "allurerc.js"):
        (results / name).write_text(theirs)
        (tmp_path / name).write_text(theirs)
    monkeypatch.chdir(results)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "allure"
    command.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo 3.18.0; exit; }\n'
        '/bin/mkdir -p "$4" && { pwd; echo "$@"; } > "$4/index.html"\n'
    )
    command.chmod(0o755)
    (into := tmp_path / "into").mkdir()
    made = report_of(results, into)
    assert made is not None
    at, given = (made / "index.html").read_text().splitlines()
    assert Path(at) == into
    # a program of the folder is no configuration: ours is, by the labels of the results
    assert given.split()[-2:] == ["--config", str(into / "allurerc.mjs")]
    ours = (into / "allurerc.mjs").read_text()
    assert '"en, aligned"' in ours
    assert "writeFileSync" not in ours
    command.write_text("#!/bin/sh\necho it broke >&2; exit 1\n")
    (made / "index.html").unlink()
    with pytest.raises(UserError, match="it broke"):
        report_of(results, into)
    (results / "4-attachment.txt").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match=r"4-attachment\.txt: leads out of the folder"):
        report_of(results, into)


@pytest.mark.skipif(shutil.which("allure") is None, reason="there is no allure to run")
def test_nothing_in_a_folder_of_results_is_run_by_the_real_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, ran = tmp_path / "results", tmp_path / "ran"
    results.mkdir()
    (results / "1-result.json").write_text(
        json.dumps({"uuid": "1", "name": "cell", "status": "passed", "start": 1, "stop": 2})
    )
    for folder in (results, tmp_path):
        for name in ("allurerc.mjs", "allurerc.js"):
            (folder / name).write_text(
                f'import {{ writeFileSync }} from "fs"; writeFileSync({json.dumps(str(ran))}, "");'
                "export default {};"
            )
    (into := tmp_path / "into").mkdir()
    monkeypatch.chdir(results)
    made = report_of(results, into)
    assert made is not None
    assert not ran.exists()
