"""Uploading with the real client of the hub, to a server on this machine that keeps what it gets."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.test_public_api import CONFIG, PASSAGES, QUESTIONS

import retrograd as rg
from retrograd.studies.push import push
from retrograd.studies.upload_files import collect_files

REPO = "me/my-rag"


@dataclass
class Hub:
    """What the server was asked and got; the repository is private, unless it ``is_public``."""

    url: str = ""
    is_public: bool = False
    token: str = "hf_right"
    created: list[dict] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> dict:
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return {"url": f"{self.url}/{REPO}", "name": REPO}
        if method == "GET" and path == f"/api/models/{REPO}":
            return {"id": REPO, "private": not self.is_public, "siblings": []}
        if path == f"/api/models/{REPO}/preupload/main":
            rows = [
                (file["path"], file["path"].endswith(("safetensors", "arrow"))) for file in json.loads(body)["files"]
            ]
            modes = [{"path": name, "uploadMode": "lfs" if large else "regular"} for name, large in rows]
            return {"files": [mode | {"shouldIgnore": False} for mode in modes]}
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return {"errors": [], "warnings": []}
        if path == f"/{REPO}.git/info/lfs/objects/batch":
            objects = json.loads(body)["objects"]
            actions = [{"upload": {"href": f"{self.url}/upload/{one['oid']}"}} for one in objects]
            return {"transfer": "basic", "objects": [o | {"actions": a} for o, a in zip(objects, actions, strict=True)]}
        if method == "PUT" and path.startswith("/upload/"):
            self.blobs[path.removeprefix("/upload/")] = body
            return {}
        if path == f"/api/models/{REPO}/commit/main":
            for row in map(json.loads, body.splitlines()):
                value = row["value"]
                if row["key"] == "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                elif row["key"] == "lfsFile":
                    self.files[value["path"]] = self.blobs[value["oid"]]
            return {"commitUrl": f"{self.url}/{REPO}/commit/abc", "commitOid": "abc", "pullRequestUrl": None}
        raise AssertionError(f"unexpected {method} {path}")


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_known = self.headers.get("Authorization") == f"Bearer {state.token}"
            is_upload = self.path.startswith("/upload/")  # to an address that needs no token
            answer = state.answer(self.command, self.path.partition("?")[0], body) if is_known or is_upload else {}
            self.send_response(200 if is_known or is_upload else 401)
            text = json.dumps(answer).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Nothing goes to the screen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def upload(hub: Hub, *words: str, token: str = "hf_right") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the client reads the hub's address as it is imported."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "retrograd", "push", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def build(encoder: Path, generator: Path) -> rg.RagModel:
    base = rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))
    names = {"retriever": str(encoder), "generator": str(generator)}
    return rg.RagModel.from_pretrained(**names, task=rg.QuestionAnswering(query_prefix="who "), base=base)


def test_a_run_arrives_as_a_folder_that_opens(tiny_encoder, tiny_seq2seq, tmp_path: Path, hub: Hub) -> None:
    model = build(tiny_encoder, tiny_seq2seq)
    run = rg.train(model, QUESTIONS, eval_examples=QUESTIONS, out=tmp_path / "run", config=CONFIG)
    for card in (run.path / "model").rglob("README.md"):
        card.unlink()  # as in runs of older versions
    done = upload(hub, str(run.path), REPO, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["private"]
    assert record["files"] == sorted(hub.files)
    assert [(one["name"], one["organization"], one["visibility"]) for one in hub.created] == [
        ("my-rag", "me", "private")
    ]
    for name, content in hub.files.items():
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    again = rg.RagModel.from_pretrained(tmp_path / "downloaded", device="cpu")
    assert [hit.passage.id for hit in again.search("what holds tea ?")] == [
        hit.passage.id for hit in run.model.search("what holds tea ?")
    ]
    assert "| exact_match |" in hub.files["README.md"].decode()
    assert "4 training examples, 4 test examples" in hub.files["README.md"].decode()
    assert {"retriever/query/README.md", "generator/README.md"} <= hub.files.keys()
    assert not [name for name, content in hub.files.items() if str(tmp_path.parent.parent).encode() in content]
    built_from = json.loads(hub.files["model.json"])["built_from"]
    names = (built_from["retriever"]["model"], built_from["generator"]["model"])
    assert names == (f"./{tiny_encoder.name}", f"./{tiny_seq2seq.name}")
    assert any(card.startswith("---\n") and "library_name" in card for card in hub.cards)


def test_nothing_goes_to_a_public_repository_by_accident(tiny_encoder, tiny_causal, tmp_path: Path, hub: Hub) -> None:
    build(tiny_encoder, tiny_causal).save_pretrained(tmp_path / "saved")
    hub.is_public = True
    done = upload(hub, str(tmp_path / "saved"), REPO)
    assert done.returncode != 0
    assert "exists and is public; add --public" in " ".join(done.stderr.split())
    assert not hub.files
    done = upload(hub, str(tmp_path / "saved"), REPO, "--public")
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/{REPO} (public): {len(hub.files)} files" in done.stdout
    assert hub.created[-1]["visibility"] == "public"
    done = upload(hub, str(tmp_path / "saved"), REPO, token="hf_wrong")
    assert done.returncode != 0
    assert "set HF_TOKEN to a token that may write" in " ".join(done.stderr.split())


def test_only_the_files_of_a_model_are_uploaded(tiny_encoder, tiny_causal, tmp_path: Path, hub: Hub) -> None:
    saved = tmp_path / "saved"
    build(tiny_encoder, tiny_causal).save_pretrained(saved)
    whole = {path.relative_to(saved).as_posix() for path in saved.rglob("*") if path.is_file()}
    strays = (".env", ".cache/one.json", "notes.md", "data/one.json", "generator/notes.txt", "generator/.one.json")
    for name in (*strays, "retriever/.query.abc.tmp/model.safetensors"):
        (saved / name).parent.mkdir(parents=True, exist_ok=True)
        (saved / name).write_text("secret", encoding="utf-8")
    done = upload(hub, str(saved), REPO, "--public")
    assert done.returncode == 0, done.stderr
    assert hub.files.keys() == whole
    assert not [name for name, content in hub.files.items() if str(tmp_path.parent.parent).encode() in content]
    assert "is private, and stays so in spite of --public" in " ".join(done.stderr.split())


def test_adapters_of_a_model_that_only_this_machine_has_stay_here(tiny_encoder, tiny_causal, tmp_path: Path) -> None:
    base = rg.KnowledgeBase.from_passages(rg.read_passages(PASSAGES))
    names = {"retriever": str(tiny_encoder), "generator": str(tiny_causal)}
    model = rg.RagModel.from_pretrained(**names, task=rg.QuestionAnswering(), base=base, lora=rg.Lora(rank=2))
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(rg.UserError, match=r"has a name on the hub, or write .* export RUN --to merged"):
        push(tmp_path / "saved", REPO)
    file = tmp_path / "saved" / "generator" / "adapter_config.json"
    for path in (file, tmp_path / "saved" / "model.json"):
        path.write_text(path.read_text().replace(str(tiny_causal), "some/model"))
    (tmp_path / "out").mkdir()
    collect_files(tmp_path / "saved", tmp_path / "out")
    copy = json.loads((tmp_path / "out" / "generator" / "adapter_config.json").read_text())
    assert copy == json.loads(file.read_text())


def test_a_fault_of_this_disk_is_not_said_to_be_one_of_the_network(tiny_encoder, tiny_causal, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    build(tiny_encoder, tiny_causal).save_pretrained(saved)
    (saved / "model.json").write_text("{")
    with pytest.raises(rg.UserError, match=r"model\.json"):
        push(saved, REPO)


def test_only_a_whole_model_is_uploaded(tiny_encoder, tiny_causal, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(rg.UserError, match="holds no model"):
        push(tmp_path / "empty", REPO)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "experiment.toml").write_text("")
    with pytest.raises(rg.UserError, match="has no finished model"):
        push(tmp_path / "begun", REPO)
    model = build(tiny_encoder, tiny_causal)
    model.save(tmp_path / "parts")
    with pytest.raises(rg.UserError, match="brings no task"):
        push(tmp_path / "parts", REPO)
    model.save_pretrained(tmp_path / "saved")
    with pytest.raises(rg.UserError, match="HF_HUB_OFFLINE is set"):
        push(tmp_path / "saved", REPO)
    with pytest.raises(rg.UserError, match="no name of a repository"):
        push(tmp_path / "saved", "a/b/c")
