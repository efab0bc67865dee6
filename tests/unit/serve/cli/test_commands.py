"""What a new user types, right and wrong: the exit code, and what is printed where.

The service behind the commands is the whole ingress over a fake graph.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from serve.cli import service
from serve.cli.console import console, error_console
from serve.cli.main import app
from serve.cli.presets import PRESETS
from serve.http.version import VERSION
from serve.media import samples
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.fake_graph import FakeGraph

SAMPLES = Path(samples.__file__).parent
NOWHERE = "localhost:9"
NO_URL = "is not the URL of a service"
NAMES = {"LONG": 300 * "n", "WIDE": 200 * "é"}
"""What stands for a name that is too long for a file, in characters or in bytes."""
VIDEO = "prompt='a red circle' length=5"
SWAP = "source_image=@me.jpg reference_image=@you.jpg"


@dataclass(frozen=True)
class Row:
    """A command, its exit code, and patterns of what it prints; the rest prints nothing there.

    An empty pattern means that the stream stays empty. ``files`` are those that it writes.
    """

    command: str
    code: int
    out: str = ""
    err: str = ""
    files: tuple[str, ...] = ()


ROWS = (
    # Finding the way
    Row("", 2, r"Usage: ryla .*serve .*call .*smoke .*demo .*check "),
    Row("--help", 0, r"run the service, call it, check its configuration"),
    Row("--version", 0, rf"^ryla-serve {re.escape(VERSION)}$"),
    Row("version", 2, err=r"No such command 'version'"),
    Row("serv", 2, err=r"No such command 'serv'. Did you mean 'serve'\?"),
    Row("serve --help", 0, r"Run the service on this machine until Ctrl-C.*--host .*--port"),
    Row("call --help", 0, r"field=value, or field=@file for an image or video.*--output.*-o"),
    Row("models", 2, r"Say what each model file is for"),
    # Starting the service
    Row("serve nope", 2, err=r"^no preset or file is named nope; presets: demo, production, single-gpu$"),
    Row("serve 'a folder'", 2, err=r"^no preset or file is named a folder; presets: "),
    Row("serve typo.yaml", 1, err=r"^Serve config: args.limits.max_wdth: unknown setting; did you mean `max_width`\?$"),
    Row("serve README.md", 1, err=r"^README.md: not valid YAML \(mapping values are not allowed here, at line 1, column 5\)$"),
    Row("serve empty.yaml", 1, err=r"^empty.yaml contains neither a Serve config nor a RayService$"),
    Row("serve single-gpu", 1, err=r"args.models.wan26.text: /models/Wan2.1-T2V-1.3B-Diffusers does not exist on this machine"),
    Row(
        "serve --port PORT",
        1,
        "^Starting demo.yaml.*Ray dashboard",
        r"^port \d+ on 127.0.0.1 is in use: stop the program .*--port",
    ),
    Row("serve LONG", 2, err="^no preset or file is named nnn"),
    Row(
        "serve --host 192.0.2.1",
        1,
        "^Starting demo.yaml",
        r"^no service can listen on 192.0.2.1, port 8000 \(Cannot assign requested address\): choose another .*--host",
    ),
    Row("serve --host a..b", 1, "^Starting demo.yaml", r"^a..b is not an address or the name of one \(.*\): choose another"),
    Row(
        "serve nokeys.yaml",
        1,
        err="^Serve config: args.ingress.api_keys: nokeys.txt cannot be read: No such file or directory$",
    ),
    Row(
        "serve badkeys.yaml",
        1,
        err="^Serve config: args.ingress.api_keys: notes.txt, line 1: must be a name and a key's SHA-256",
    ),
    Row("serve --port 99999", 2, err=r"'--port': Input should be less than or equal to 65535"),
    # Calling it
    Row("call", 2, err=r"Missing argument 'endpoint'"),
    Row("call ''", 2, err=r"^name an endpoint: wan2.6, wan2.6-i2v, "),
    Row("call wan2.6", 1, err=r"^wan2.6: 422 `prompt` is required$"),
    Row(f"call wan2.6 {VIDEO}", 0, r"x-seed: \d+.*wan2.6.webp: \d+ bytes in \d", files=("wan2.6.webp",)),
    Row(f"call /wan2.6 {VIDEO} -o cat.mp4", 0, r"x-frames: 5.*cat.mp4: \d+ bytes in \d", files=("cat.mp4",)),
    Row(f"call wan2.6 {VIDEO} -o -", 0, r"^RIFF", r"x-seed: \d+.*-: \d+ bytes in \d"),
    Row(f"call wan26 {VIDEO}", 1, err=r"^wan26: 404 unknown path: /wan26; .*; did you mean `wan2.6`\?$"),
    Row("call readyz", 1, err=r"^readyz: 405 POST is not allowed here; .*; endpoints: wan2.6, .*video-faceswap$"),
    Row("call wan2.6 'a red circle'", 2, err=r"`a red circle` must have the form field=value"),
    Row("call wan2.6 =x", 2, err=r"`=x` must have the form field=value"),
    Row("call wan2.6 promt=hi", 1, err=r"^wan2.6: 422 `prompt` is required; `promt`: unknown field; did you mean `prompt`\?$"),
    Row(
        f"call wan2.6 {VIDEO} stepz=2",
        0,
        "x-ignored-fields: stepz",
        r"^warning: /wan2.6 ignored the field `stepz`; did you mean `steps`\?$",
        ("wan2.6.webp",),
    ),
    Row(f"call wan2.6 {VIDEO} sampler=euler", 0, "x-seed", r"^warning: /wan2.6 ignored the field `sampler`$", ("wan2.6.webp",)),
    Row("call wan2.6 prompt=hi width=120", 1, err=r"`width`: 120 is not a multiple of 16 .*; the nearest valid value is 128$"),
    Row("call wan2.6 prompt=hi width=abc", 1, err=r"^wan2.6: 422 `width`: input should be a valid integer"),
    Row("call wan2.6 prompt=hi -o a.bmp", 2, err=r"^a.bmp: unknown extension .bmp; use one of .*\.mp4"),
    Row("call wan2.6 prompt=hi -o missing/a.mp4", 2, err=r"^missing/a.mp4 cannot be written: its folder must exist"),
    Row("call wan2.6 prompt=hi -o 'a folder'", 2, err=r"^a folder is a folder: name a file in it$"),
    Row(
        "call wan2.6 prompt=hi -o a.jpg",
        1,
        err=r"^wan2.6: 406 Accept is `image/jpeg`; this path offers image/webp, video/mp4, image/gif$",
    ),
    Row(
        f"call wan2.6 prompt=hi --url {NOWHERE}",
        1,
        err=rf"^wan2.6: no answer from http://{NOWHERE} .*is the service running\?$",
    ),
    Row("call wan2.6 prompt=hi --url ftp://x", 1, err=r"^wan2.6: no answer from ftp://x .*unsupported protocol"),
    Row("call wan2.6 --url host:80a", 1, err=rf"^host:80a {NO_URL} \(Invalid port: '80a'\); it is http://HOST:PORT$"),
    Row("call wan2.6 --url http://[::1", 1, err=rf"^http://\[::1 {NO_URL} \("),
    Row("call wan2.6 --url http://a..b", 1, err=rf"^http://a..b {NO_URL} \("),
    Row("call wan2.6 --key é", 1, err="^the key has characters that cannot be sent: use printable ASCII only$"),
    Row("call wan2.6 prompt=hi -o LONG.mp4", 2, err=r"^n+.mp4 cannot be written: File name too long$"),
    Row("call LONG prompt=hi", 2, err=r"^n+ cannot be written: File name too long$"),
    Row("call wan2.6 prompt=hi -o notes.txt/a.mp4", 2, err=r"^notes.txt/a.mp4 cannot be written: Not a directory$"),
    Row("call wan2.6-i2v prompt=hi reference_image=WIDE", 1, err=r"^wan2.6-i2v: 422 `reference_image`"),
    Row(
        f"call wan2.6-i2v {VIDEO} reference_image=@me.jpg",
        0,
        r"x-model: wan2.6-i2v.*\.webp: \d+ bytes",
        files=("wan2.6-i2v.webp",),
    ),
    Row(
        "call wan2.6-i2v prompt=hi reference_image=me.jpg", 2, err=r"sends the name and not the file; .*reference_image=@me.jpg"
    ),
    Row("call wan2.6-i2v prompt=hi reference_image=@nope.jpg", 2, err=r"reference_image: nope.jpg: No such file or directory"),
    Row("call wan2.6-i2v prompt=hi reference_image=@'a folder'", 2, err=r"reference_image: a folder: Is a directory"),
    Row(
        "call wan2.6-i2v prompt=hi reference_image=@notes.txt",
        1,
        err=r"`reference_image`: the file is not an image .*send JPEG",
    ),
    Row(f"call image-faceswap {SWAP}", 0, r"x-faces-found: 1.*image-faceswap.jpg: \d+ bytes", files=("image-faceswap.jpg",)),
    Row(f"call image-faceswap {SWAP} -o out.png", 0, r"out.png: \d+ bytes", files=("out.png",)),
    Row("call image-faceswap source_image=@me.jpg", 1, err=r"^image-faceswap: 422 `reference_image` is required$"),
    Row(
        "call image-faceswap sauce_image=@me.jpg reference_image=@you.jpg",
        1,
        err=r"unknown field; did you mean `source_image`\?$",
    ),
    Row(f"call image-faceswap {SWAP} faces=everyone", 1, err=r"`faces`: input should be 'largest', 'all', 'left'"),
    Row(
        "call video-faceswap source_video=@me.jpg reference_image=@you.jpg",
        0,
        r"x-frames-swapped: 1.*video-faceswap.mp4: \d+ bytes",
        files=("video-faceswap.mp4",),
    ),
    # Jobs; test_jobs.py has what is right
    Row("call --job", 2, err=r"Missing argument 'endpoint'"),
    Row("call wan2.6 prompt=hi --cancel-on-interrupt", 2, err=r"^--cancel-on-interrupt needs --job$"),
    Row("call wan2.6 prompt=hi --job -o a.bmp", 2, err=r"^a.bmp: unknown extension .bmp; use one of .*\.mp4"),
    Row("call wan2.6 prompt=hi --job -o missing/a.mp4", 2, err=r"^missing/a.mp4 cannot be written: its folder must exist"),
    Row(
        f"call wan2.6 prompt=hi --job --url {NOWHERE}",
        1,
        err=rf"^wan2.6: no answer from http://{NOWHERE} .*is the service running\?$",
    ),
    Row(f"call wan26 {VIDEO} --job", 1, err=r"^wan26: 404 unknown path: /wan26; .*; did you mean `wan2.6`\?$"),
    Row("job", 2, err=r"Missing argument 'job_id'"),
    Row("job ''", 2, err=r"^name a job: `ryla jobs` lists yours$"),
    Row("job x -o a.bmp", 2, err=r"^a.bmp: unknown extension .bmp; use one of .*\.mp4"),
    Row("job x -o 'a folder'", 2, err=r"^a folder is a folder: name a file in it$"),
    Row(f"job x --url {NOWHERE}", 1, err=rf"^job x: no answer from http://{NOWHERE} .*is the service running\?$"),
    Row("job x --url host:80a", 1, err=rf"^host:80a {NO_URL} \("),
    Row("job nope", 1, err=r"^job nope: 404 "),
    Row("job nope --follow", 1, err=r"^job nope: 404 "),
    Row("jobs --limit 0", 2, err=r"'--limit': Input should be greater than or equal to 1"),
    Row("jobs --state done", 2, err=r"'--state': .*'queued', 'starting', 'running', 'succeeded', 'failed', 'cancelled'"),
    Row(f"jobs --url {NOWHERE}", 1, err=rf"^jobs: no answer from http://{NOWHERE} .*is the service running\?$"),
    Row("cancel", 2, err=r"Missing argument 'job_id'"),
    Row("cancel ' '", 2, err=r"^name a job: `ryla jobs` lists yours$"),
    Row("cancel nope", 1, err=r"^job nope: 404 "),
    # Watching it
    Row("top", 2, err=r"^the table needs a terminal: --once prints what runs now$"),
    Row("top --once --dashboard ''", 0, r"^deployment\tWan26\tready\t1"),
    Row(f"top --once --url {NOWHERE}", 1, err=rf"^readyz: no answer from http://{NOWHERE} .*is the service running\?$"),
    Row("profile --size 832x480", 1, err=r"^--size 832x480: write width, height, frames and steps, such as 832x480x33x30$"),
    Row("profile --model wan27", 2, err=r"'--model': .*'wan26', 'wan22-gguf'"),
    # Testing it
    Row(f"smoke {NOWHERE}", 1, err=rf"^no answer from http://{NOWHERE} \(.*\); is the service running\?$"),
    Row("smoke host:80a", 1, err=rf"^host:80a {NO_URL} \("),
    Row("smoke http://[::1", 1, err=rf"^http://\[::1 {NO_URL} \("),
    Row("smoke --key é", 1, err="^the key has characters that cannot be sent: use printable ASCII only$"),
    Row("smoke --save LONG", 2, err="^no results can be saved in n+: File name too long$"),
    Row("smoke --url x", 2, err=r"No such option: --url"),
    Row("smoke --save notes.txt", 2, err=r"^no results can be saved in notes.txt: File exists$"),
    Row("smoke", 0, r"/wan2.6 .*/batch-video-faceswap .* 0\.000000"),
    Row("demo --help", 0, r"Start the demo, call all seven endpoints, save the results and stop the demo"),
    Row("demo --save notes.txt", 2, err=r"^no results can be saved in notes.txt: File exists$"),
    # Checking a configuration and model files
    Row("check", 2, err=r"Missing argument 'config'"),
    Row("check demo", 0, r"^No faults in 1 configuration\(s\)\.$"),
    Row("check typo.yaml", 1, err=r"did you mean `max_width`\?$"),
    Row("check nope.yaml", 2, err=r"^no preset or file is named nope.yaml; presets: "),
    Row("check -", 1, err=r"^standard input contains neither a Serve config nor a RayService$"),
    Row("check LONG", 2, err="^no preset or file is named nnn"),
    Row("check README.md", 1, err=r"^README.md: not valid YAML \("),
    Row("check production --files", 1, err=r"args.models.faces.swapper: /models/.* does not exist on this machine"),
    Row("models check", 2, err=r"Missing argument 'folder'"),
    Row("models check nope", 1, err=r"^nope: no such folder$"),
    Row("models check 'a folder'", 1, r"inswapper, swap .*missing", r"^a folder: 3 model file\(s\) are missing or faulty$"),
    Row("rollout", 2, err=r"Missing argument 'name'"),
    Row("rollout ryla", 1, err=r"^there is no service account at .*: this command must run in a pod$"),
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live_service(FakeGraph()) as url:
        yield url


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the files of a new user, on a terminal that breaks no line."""
    for shown in (console, error_console):
        monkeypatch.setattr(shown, "width", 400)
    monkeypatch.setenv("TERMINAL_WIDTH", "400")  # of Typer's own messages
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(service, "DRIVER", ("-c", "raise SystemExit('Ray must not start')"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(SAMPLES / "portrait.jpg", "me.jpg")
    shutil.copy(SAMPLES / "officer.jpg", "you.jpg")
    Path("notes.txt").write_text("These are no pixels.")
    Path("empty.yaml").touch()
    Path("README.md").write_text("A: b: c\n")
    Path("typo.yaml").write_text((PRESETS / "demo.yaml").read_text().replace("max_width", "max_wdth"))
    for name, keys in (("nokeys", "nokeys.txt"), ("badkeys", "notes.txt")):
        config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
        config["applications"][0]["args"].setdefault("ingress", {})["api_keys"] = keys
        Path(f"{name}.yaml").write_text(yaml.safe_dump(config))
    Path("a folder").mkdir()


def run(command: str, url: str) -> Result:
    """Run a command as a shell would; the service is the one at ``url``."""
    for word, meaning in {"PORT": url.rpartition(":")[2], **NAMES}.items():
        command = command.replace(word, meaning)
    words = shlex.split(command)
    return CliRunner().invoke(app, words, env={"RYLA_URL": url}, input="")


def matches(pattern: str, text: str) -> bool:
    """Return whether a stream has what is expected: nothing, or the pattern in its lines."""
    unframed = re.sub(r"[│╭╮╰╯─┃┏┓┗┛━]+", " ", text)
    return re.search(pattern, unframed.strip(), re.DOTALL) is not None if pattern else not text.strip()


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[row.command or "(nothing)" for row in ROWS])
def test_a_command_does_and_prints_what_a_new_user_needs(row: Row, url: str) -> None:
    before = set(Path().iterdir())
    result = run(row.command, url)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    out = result.stdout_bytes.decode(errors="replace")
    assert result.exit_code == row.code, result.output
    assert matches(row.out, out), out
    assert matches(row.err, result.stderr), result.stderr
    assert {path.name for path in {*Path().iterdir()} - before} == set(row.files)
    assert all(Path(file).stat().st_size > 0 for file in row.files)
    assert "Traceback" not in result.output


def test_the_table_has_forty_commands_and_every_one_is_of_its_own() -> None:
    assert len({row.command for row in ROWS}) == len(ROWS) >= 40
    assert {command.name for command in app.registered_commands} <= {row.command.split(" ")[0] for row in ROWS} | {None}
