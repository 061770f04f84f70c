"""What is published to real servers is what an agent fetches from them, and nothing is replaced unasked."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.artifact.artifacts import Artifacts
from agent.artifact.s3 import S3Access
from agent.artifact.store import Store
from agent.cli.exit_codes import FAILED, NOT_NOW, OK
from agent.domain.artifact_spec import ArtifactSpec, Checksum
from agent.publish import s3 as publishing_s3
from tests.artifact.oci.test_registries import TokenService, encoded, logins
from tests.artifact.trees import snapshot
from tests.kit.artifact_server import ArtifactServer
from tests.kit.hostile import Asked, HostileServer, whole
from tests.kit.ports import free_port
from tests.kit.registry import Registry, run
from tests.kit.s3_server import SECRET, S3Server
from tests.publish.conftest import Ci

LOCATIONS = """
location / { dav_methods PUT; create_full_put_path on; client_max_body_size 0; %s }
"""
LOCKED = "limit_except GET { auth_basic tests; auth_basic_user_file %s; }"


async def fetched(url: str, sha256: str, base: Path, **how: Any) -> Mapping[bytes, object]:
    """What an agent makes of it."""
    spec = ArtifactSpec(url=url, checksum=Checksum(algorithm="sha256", hex=sha256))
    async with Artifacts(Store(base / f"store-{os.urandom(4).hex()}"), **how) as artifacts:
        async with artifacts.deliver(spec, "web") as delivery:
            found = snapshot(await delivery.published(), times=False)
            # Layers stay in the store, of which the release's files are further names.
            return {
                name: (*entry[:-1], b"") if entry[0] == "file" else entry for name, entry in found.items()
            }


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ArtifactServer]:
    """nginx that lets a certain user write, and everybody read."""
    (tmp_path / "htpasswd").write_text("ci:{PLAIN}a-secret-of-ci\n")
    locations = LOCATIONS % (LOCKED % (tmp_path / "htpasswd"))
    async with ArtifactServer(tmp_path, locations=locations) as running:
        yield running


def credentials(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "logins"
    path.write_text(f"https://other.example\n{url.replace('http://', 'http://ci:a-secret-of-ci@')}\n")
    return path


async def test_a_directory_is_put_by_http_once_and_fetched_as_it_was(
    ci: Ci, server: ArtifactServer, tree: Path, tmp_path: Path
) -> None:
    words = (tree, "--to", f"{server.url}/web/1.0/", "--app", "web", "--version", "1.0",
             "--credentials-file", credentials(tmp_path, server.url))  # fmt: skip
    answer = await ci.publish(*words)
    assert answer.code == OK, answer.err
    url, sha256 = f"{server.url}/web/1.0/web-1.0.tar", answer.out.strip().removeprefix("sha256:")
    assert f"{url}  " in answer.err
    assert await fetched(url, sha256, tmp_path) == snapshot(tree, times=False)
    assert (server.root / "web/1.0/web-1.0.tar.sha256").read_text() == f"{sha256}  web-1.0.tar\n"
    again = await ci.told(*words)
    assert (again["sent"], again["sha256"], again["url"]) == (0, sha256, url)
    (tree / "share/page").write_text("other\n")
    taken = await ci.publish(*words)
    assert taken.code == FAILED
    assert "another file of that name" in taken.err
    assert "--replace" in taken.err
    replaced = await ci.told(*words, "--replace")
    assert await fetched(url, replaced["sha256"], tmp_path) == snapshot(tree, times=False)


async def test_without_a_login_nothing_is_written_and_netrc_is_one(
    ci: Ci, server: ArtifactServer, tree: Path, tmp_path: Path
) -> None:
    words = (tree, "--to", f"{server.url}/web.tar")
    denied = await ci.publish(*words)
    assert denied.code == FAILED
    assert "answered 401" in denied.err
    assert "--credentials-file" in denied.err
    assert not (server.root / "web.tar").exists()
    netrc = ci.home / "netrc"
    netrc.write_text("machine 127.0.0.1 login ci password a-secret-of-ci\n")
    netrc.chmod(0o600)
    answer = await ci.publish(*words, env={"NETRC": str(netrc)})
    assert answer.code == OK, answer.err
    assert (server.root / "web.tar").exists()
    netrc.write_text("machine 127.0.0.1 login ci password another-secret\n")
    netrc.rename(ci.home / ".netrc")
    assert (await ci.publish(tree, "--to", f"{server.url}/other.tar")).code == FAILED
    both = ("--credentials-file", credentials(tmp_path, server.url))  # which counts before
    assert (await ci.publish(tree, "--to", f"{server.url}/other.tar", *both)).code == OK


async def test_a_login_in_the_url_is_refused_and_not_repeated(ci: Ci, tree: Path) -> None:
    answer = await ci.publish(tree, "--to", "https://ci:a-secret-of-ci@releases.example/web.tar")
    assert answer.code == FAILED
    assert "a-secret-of-ci" not in answer.err + answer.out
    assert "--credentials-file" in answer.err


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/web.tar", "state"])
async def test_a_file_of_logins_that_is_none_is_told_without_its_content(
    ci: Ci, tree: Path, tmp_path: Path, target: str
) -> None:
    logins = tmp_path / "logins"
    logins.write_text("http://ci:a-secret-of-ci@[\n")
    words = [tree, "--to", target, "--credentials-file", logins]
    if target == "state":
        words[2:3] = [
            tmp_path / "out.tar",
            "--state",
            "http://127.0.0.1:9/x.git",
            "--app",
            "a",
            "--version",
            "1",
        ]
    answer = await ci.publish(*words)
    assert answer.code == FAILED
    assert f"{logins}: the credentials file cannot be used" in answer.err
    assert "a-secret-of-ci" not in answer.err


async def test_a_server_that_is_away_is_tried_again_and_told_apart(ci: Ci, tree: Path) -> None:
    answer = await ci.publish(tree, "--to", f"http://127.0.0.1:{free_port()}/web.tar")
    assert answer.code == NOT_NOW
    assert "Error: " in answer.err


class Flaky:
    """Takes a PUT, but only after a 503 and a redirect to another origin that keeps the body."""

    def __init__(self) -> None:
        self.elsewhere = ""
        self.failed = False
        self.got: dict[str, Asked] = {}

    async def answer(self, request: Asked, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET":
            writer.write(whole(b"", "text/plain", status="404 Not Found"))
        elif not self.failed:
            self.failed = True
            writer.write(whole(b"", "text/plain", status="503 Busy", headers={"Retry-After": "0"}))
        elif self.elsewhere and "elsewhere" not in request.path:
            self.got.setdefault("first", request)
            where = {"Location": f"{self.elsewhere}/elsewhere{request.path}"}
            writer.write(whole(b"", "text/plain", status="307 There", headers=where))
        else:
            self.got.setdefault("last", request)
            writer.write(whole(b"", "text/plain", status="201 Created"))


async def test_a_redirect_keeps_the_body_and_loses_the_login(ci: Ci, tree: Path, tmp_path: Path) -> None:
    flaky = Flaky()
    async with HostileServer(flaky.answer) as here, HostileServer(flaky.answer) as there:
        flaky.elsewhere = there.url
        answer = await ci.told(
            tree, "--to", f"{here.url}/web.tar", "--credentials-file", credentials(tmp_path, here.url)
        )
    assert "authorization" in flaky.got["first"].headers
    assert "authorization" not in flaky.got["last"].headers
    assert hashlib.sha256(flaky.got["last"].body).hexdigest() == answer["sha256"]
    assert flaky.got["last"].headers["if-none-match"] == "*"


async def test_the_proxy_of_the_environment_is_gone_through(ci: Ci, tree: Path) -> None:
    flaky = Flaky()
    async with HostileServer(flaky.answer) as proxy:
        around = {"HTTP_PROXY": proxy.url.replace("://", "://me:proxy-secret@"), "NO_PROXY": ""}
        await ci.told(tree, "--to", "http://releases.example/web.tar", env=around)
    assert flaky.got["last"].path == "http://releases.example/web.tar"
    assert flaky.got["last"].headers["proxy-authorization"].startswith("Basic ")


@pytest.mark.parametrize("in_parts", [False, True])
async def test_a_bucket_of_s3(
    ci: Ci, tree: Path, tmp_path: Path, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_parts:
        monkeypatch.setattr(publishing_s3, "_AT_ONCE", 1000)
        (tree / "noise").write_bytes(os.urandom(12 << 20))
    async with S3Server(tmp_path) as s3:
        words = (tree, "--to", "s3://releases/web/1.0/web.tar", "--s3-endpoint", s3.url)
        login = ("--s3-credentials-file", s3.credentials)
        sent = await ci.told(*words, *login)
        access = S3Access(endpoint=s3.url, credentials=s3.credentials)
        assert await fetched(sent["url"], sent["sha256"], tmp_path, s3=access) == snapshot(tree, times=False)
        assert (s3.buckets / "releases/web/1.0/web.tar.sha256").read_text() == f"{sent['sha256']}  web.tar\n"
        assert (await ci.told(*words, *login))["sent"] == 0
        (tree / "share/page").write_text("other\n")
        assert "--replace" in (await ci.publish(*words, *login)).err
        assert (await ci.told(*words, *login, "--replace"))["sent"] > 0
        environment = {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": SECRET}
        denied = await ci.publish(*words, env=environment)
        assert denied.code == FAILED
        assert SECRET not in denied.err


async def test_two_layers_to_a_registry_of_which_only_the_changed_one_moves(
    ci: Ci, tree: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    (base / "lib").mkdir(parents=True)
    (base / "lib/large").write_bytes(os.urandom(1 << 20))
    async with Registry(tmp_path, login=("ci", "a-secret-of-ci")) as registry:
        auth = logins(tmp_path / "config.json", {registry.host: encoded("ci", "a-secret-of-ci")})
        words = (
            base,
            tree,
            "--to",
            f"oci://{registry.host}/team/legacy",
            "--insecure-registry",
            registry.host,
        )
        login = ("--registry-auth-file", auth)
        first = await ci.told(*words, *login, "--version", "1.0")
        assert first["url"] == f"oci://{registry.host}/team/legacy:1.0"
        assert first["sent"] == first["size"] > 1 << 20
        how = {"insecure_registries": [registry.host], "registry_auth": auth}
        merged = await fetched(first["url"], first["sha256"], tmp_path, **how)
        assert merged == {**snapshot(base, times=False), **snapshot(tree, times=False)}
        shown = await run(
            "skopeo", "inspect", "--tls-verify=false", "--creds", "ci:a-secret-of-ci",
            f"docker://{registry.host}/team/legacy:1.0",
        )  # fmt: skip
        assert f"sha256:{first['sha256']}".encode() in shown

        (tree / "share/page").write_text("changed\n")
        second = await ci.told(*words, *login, "--version", "1.1")
        assert 0 < second["sent"] < 20_000
        assert (await ci.told(*words, *login, "--version", "1.1"))["sent"] == 0
        taken = await ci.publish(*words, *login, "--version", "1.0")
        assert taken.code == FAILED
        assert "--replace" in taken.err
        assert (await ci.told(*words, *login, "--version", "1.0", "--replace"))["sha256"] == second["sha256"]

        denied = await ci.publish(*words, "--version", "1.2")
        assert denied.code == FAILED
        assert "docker login" in denied.err
        docker = ci.home / ".docker"
        docker.mkdir()
        auth.rename(docker / "config.json")
        assert (await ci.told(*words, "--version", "1.2"))["sha256"] == second["sha256"]


async def test_a_registry_that_wants_tokens_gives_one_for_pushing(ci: Ci, tree: Path, tmp_path: Path) -> None:
    tokens = TokenService(tmp_path, "token")
    async with HostileServer(tokens.answer) as service:
        auth = {"token": {"realm": f"{service.url}/token", "service": "registry", "issuer": "tests",
                          "rootcertbundle": str(tokens.bundle)}}  # fmt: skip
        async with Registry(tmp_path, auth=auth) as registry:
            words = (tree / "bin/web", "--to", f"oci://{registry.host}/team/web:1.0",
                     "--insecure-registry", registry.host, "--registry-auth-file")  # fmt: skip
            wrong = logins(tmp_path / "wrong.json", {registry.host: encoded("deployer", "wrong-password")})
            denied = await ci.publish(*words, wrong)
            assert denied.code == FAILED
            assert "wrong-password" not in denied.err
            for name, login in {
                "a": encoded("deployer", "secret-password"),
                "b": {"identitytoken": "refresh-me"},
            }.items():
                file = logins(tmp_path / f"{name}.json", {registry.host: login})
                sent = await ci.told(*words, file)
            how = {"insecure_registries": [registry.host], "registry_auth": file}
            assert await fetched(sent["url"], sent["sha256"], tmp_path, **how) == {
                b"bin": ("directory", "0o755"),
                b"bin/web": ("file", "0o755", (tree / "bin/web").read_bytes(), 0, b""),
            }


async def test_a_directory_of_this_machine(ci: Ci, tree: Path, tmp_path: Path) -> None:
    words = (tree, "--to", f"{tmp_path}/releases/", "--app", "web", "--version", "1.0")
    sent = await ci.told(*words)
    assert sent["url"] == (tmp_path / "releases/web-1.0.tar").as_uri()
    assert sorted(os.listdir(tmp_path / "releases")) == ["web-1.0.tar", "web-1.0.tar.sha256"]
    assert await fetched(sent["url"], sent["sha256"], tmp_path, file_roots=[tmp_path]) == snapshot(
        tree, times=False
    )
    assert (await ci.told(*words))["sent"] == 0
    (tree / "share/page").write_text("other\n")
    assert (await ci.publish(*words)).code == FAILED
    assert (await ci.told(*words, "--replace"))["sent"] > 0
    file = await ci.told(tree / "bin/web", "--to", tmp_path / "releases")
    assert (tmp_path / "releases/web").read_bytes() == (tree / "bin/web").read_bytes()
    assert file["url"] == (tmp_path / "releases/web").as_uri()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "ftp://releases.example/web.tar"], "nothing is published there"),
        (["--to", "oci://registry.example/web"], "under a tag"),
        (["--to", "oci://registry.example/Web:1"], "lower case"),
        (["--to", "/nowhere/web.zip"], "end it with .tar"),
    ],
)
async def test_what_cannot_be_is_refused_in_words(ci: Ci, tree: Path, words: list[str], said: str) -> None:
    answer = await ci.publish(tree, *words)
    assert answer.code == FAILED
    assert said in answer.err
