"""The product needs no git program, and no more of dulwich than its object library."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.kit.git_server import Repository

CLIENT = """
import asyncio, json, pathlib, shutil, sys
from agent.source.git.remote import GitRemote

async def main(url, out):
    async with GitRemote(url) as remote:
        commit = await remote.ls_ref("main")
        before = sorted(name for name in sys.modules if name.startswith("dulwich"))
        with await remote.resolve("main", commit) as snapshot:
            await snapshot.export(pathlib.Path(out))
        earlier = await remote.earlier(commit, 3)
    heavy = [name for name in sys.modules if name.split(".")[0] in ("urllib3", "requests", "paramiko")]
    heavy += [name for name in sys.modules if name in ("dulwich.client", "dulwich.porcelain")]
    print(json.dumps({"git": shutil.which("git"), "commit": commit, "earlier": earlier,
                      "before": before, "heavy": heavy}))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def run_client(url: str, out: Path) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CLIENT, url, str(out)),
        cwd=Path(__file__).parents[3],
        env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    result = json.loads(output)
    assert isinstance(result, dict)
    return result


async def test_all_works_with_an_empty_path(state: Repository, tmp_path: Path) -> None:
    first = await state.put({"state.yaml": "schema: 1"})
    commit = await state.put({"state.yaml": "schema: 1\n"})
    for number, url in enumerate((state.url, state.path.as_uri())):
        out = tmp_path / str(number)
        result = await run_client(url, out)
        assert result["git"] is None
        assert (result["commit"], result["earlier"]) == (commit, [first])
        assert (out / "state.yaml").read_text() == "schema: 1\n"


async def test_dulwich_is_loaded_at_the_first_fetch_and_its_http_client_never(
    state: Repository, tmp_path: Path
) -> None:
    await state.put({"a": "1"})
    result = await run_client(state.url, tmp_path / "out")
    assert result["before"] == []
    assert result["heavy"] == []
