"""The examples for Kubernetes: right by its schemas, and what they promise of the agent in a pod."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes_validate
import pytest
import yaml

from tests.kit.box import Box
from tests.kit.operator import run
from tests.kit.programs import left_behind

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/kubernetes"
FILES = ("deployment.yaml", "statefulset.yaml", "job.yaml", "cronjob.yaml")
VERSIONS = ("1.29", kubernetes_validate.latest_version())
QUICK: dict[str, Any] = {"http": "/healthz", "interval": "50ms", "deadline": "20s", "probation": "200ms"}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def pod(name: str) -> dict[str, Any]:
    """The pod's specification in an example."""
    for document in documents(name):
        spec = document["spec"].get("jobTemplate", document)["spec"]
        if "template" in spec:
            found: dict[str, Any] = spec["template"]["spec"]
            return found
    raise AssertionError(f"{name} has no pod")


def container(name: str) -> dict[str, Any]:
    (found,) = pod(name)["containers"]
    assert isinstance(found, dict)
    return found


def environment(name: str, **fields: str) -> dict[str, str]:
    """A container's variables; `fields` are what the downward API says (metadata_name)."""
    return {
        entry["name"]: entry["value"]
        if "value" in entry
        else fields[entry["valueFrom"]["fieldRef"]["fieldPath"].replace(".", "_")]
        for entry in container(name)["env"]
    }


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_example_is_right_by_the_schemas_of_kubernetes(name: str, version: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_see_a_mistake() -> None:
    deployment = documents("deployment.yaml")[0]
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 90
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


def test_the_plain_deployment_is_short() -> None:
    assert len((EXAMPLES / "deployment.yaml").read_text().splitlines()) < 40


@pytest.mark.parametrize("name", FILES)
def test_a_pod_is_what_the_image_expects(name: str) -> None:
    spec, box = pod(name), container(name)
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (
        int(user[1]),
        int(user[2]),
    )
    assert box["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["mountPath"] for mount in box["volumeMounts"]} >= {"/var/lib/emptybox", "/tmp"}
    given = environment(name, metadata_name="web-0", status_podIP="127.0.0.1")
    if "EMPTYBOX_GRACE_PERIOD" in given:
        assert given["EMPTYBOX_GRACE_PERIOD"] == f"{spec['terminationGracePeriodSeconds']}s"


@pytest.mark.parametrize("name", ["deployment.yaml", "statefulset.yaml"])
async def test_the_probes_and_variables_of_a_pod_fit_the_agent(box: Box, name: str) -> None:
    given = environment(name, metadata_name="web-0", status_podIP="127.0.0.9")
    mine = {key: given[key] for key in given if key not in ("EMPTYBOX_REPO", "EMPTYBOX_CREDENTIALS_FILE")}
    await box.deploy("1.0", health=QUICK)
    await box.start(environment={**mine, "EMPTYBOX_SHUTDOWN_DELAY": "0s"})
    app = await box.proven("1.0")
    assert not [c for c in app["conditions"] if c["type"] == "GraceShort"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert await status_of(box, container(name)[probe]["httpGet"]["path"]) == 200
    seen = dict(line.split("=", 1) for line in (await box.get("/environment"))[1].splitlines())
    passed = given.get("EMPTYBOX_PASS_ENV", "").split(",")
    assert {key: seen.get(key) for key in passed if key} == {key: given[key] for key in passed if key}
    if name == "statefulset.yaml":
        assert (await box.status())["agent"]["host"] == "web-0"


async def status_of(box: Box, path: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(box.url(path)) as answer:
        return answer.status


async def test_a_long_migration_never_lets_the_pod_be_killed(box: Box) -> None:
    go = box.directory / "go"
    wait = ["sh", "-c", f"until [ -e {go}{{{{ version }}}} ]; do sleep 0.05; done"]
    migrate = [{"name": "schema", "command": wait, "timeout": "10m"}]
    await box.deploy("1.0", health=QUICK, migrate=migrate)
    await box.start()
    await box.app_is(run__phase="migrate")
    for _ in range(50):
        assert await status_of(box, "/healthz") == 200
        assert await status_of(box, "/readyz") == 503  # no client is sent here yet
    Path(f"{go}1.0").touch()
    await box.proven("1.0")
    await box.deploy("2.0", push=True, health=QUICK, migrate=migrate)
    await box.app_is(run__phase="migrate")
    for _ in range(50):
        assert await status_of(box, "/healthz") == 200
        assert await status_of(box, "/readyz") == 200  # the old version serves on
        assert await box.get() == (200, "1.0\n")
    Path(f"{go}2.0").touch()
    await box.proven("2.0")


async def test_an_app_whose_end_does_not_fit_the_grace_period_says_so(box: Box) -> None:
    box.settings |= {"--grace-period": "20s", "--shutdown-delay": "1s"}
    await box.deploy("1.0", health=QUICK)  # with the default deadlines: 30 s to drain, 10 s to stop
    await box.start()
    app = await box.proven("1.0")
    (told,) = [c for c in app["conditions"] if c["type"] == "GraceShort"]
    assert (told["status"], told["reason"]) == ("True", "EndTooLong")
    assert told["message"] == "drain, stop and cleanup may take 40 s, --grace-period leaves 19 s for them"
    run = {"stop": {"grace": "2s"}, "command": box.state("2.0")["apps"]["web"]["run"]["command"]}
    await box.deploy("2.0", push=True, health=QUICK, drain={"deadline": "5s"}, run=run)
    app = await box.proven("2.0")
    (told,) = [c for c in app["conditions"] if c["type"] == "GraceShort"]
    assert told["status"] == "False"


@pytest.mark.parametrize("name", ["job.yaml", "cronjob.yaml"])
async def test_a_job_does_its_work_and_ends_with_what_became_of_it(box: Box, name: str) -> None:
    assert container(name)["command"][0] == "emptybox"
    verb = container(name)["command"][1]
    given = {key: value for key, value in environment(name).items() if key != "EMPTYBOX_REPO"}
    done = box.directory / "done"
    for command, code in ((["sh", "-c", f"echo once >> {done}"], 0), (["sh", "-c", "exit 3"], 1)):
        await box.deploy(f"1.{code}", health=QUICK, migrate={"command": command})
        told = await run(*box.command(verb)[4:], environment=given)
        assert told.code == code, told.err
        assert done.read_text() == "once\n"
        assert left_behind(box) == []
