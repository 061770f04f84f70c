"""The door: what signatures an artifact needs, whether they are known to be there, and how to get them.

Signatures are asked for before the first byte of an artifact, and judged with its last one, before its
release is published. Those of an image speak of its digest alone, and are judged before anything of it is
fetched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache, partial

from agent.artifact.limits import Limits
from agent.artifact.oci.registry import Registry
from agent.artifact.partial import Open
from agent.artifact.pipeline import Meter, telling
from agent.artifact.source import shown, split
from agent.artifact.store import Store
from agent.artifact.trust import image
from agent.artifact.trust.case import Case, Demand, Found, missing, of_cosign, refusal
from agent.artifact.trust.marks import Marks
from agent.artifact.trust.rules import Rule, Rules
from agent.domain.artifact_spec import ArtifactSpec
from agent.domain.errors import Failure, OperatorNeeded, Permanent
from agent.domain.oci_reference import SCHEME, parse
from agent.kit.signatures import keys, openpgp
from agent.kit.signatures.keys import KeySet
from agent.kit.signatures.refused import KeyInvalid, Refused

SUFFIXES = {"minisign": (".minisig",), "ssh": (".sig",), "cosign": (".sig",), "openpgp": (".asc", ".sig")}
_SIGNATURE_MAX = 64 << 10  # bytes
_DEADLINE = 60.0  # seconds for all signatures of one artifact
Opener = Callable[[ArtifactSpec, str], Open]
_parsed = lru_cache(maxsize=64)(keys.parse)


class Signatures:
    """One object for the agent's life.

    Args:
        rules: what the agent's settings require.
        opener: how a URL of an artifact's (its own, or a signature's) is opened.
    """

    def __init__(
        self, rules: Rules, store: Store, registry: Registry, opener: Opener, limits: Limits
    ) -> None:
        self._rules = rules
        self._store = store
        self._registry = registry
        self._opener = opener
        self._limits = limits
        self._marks = Marks(store.signed)

    def sought(self, spec: ArtifactSpec) -> object | None:
        """Equal for artifacts that need the same signatures from the same place; None where none are."""
        try:
            rules = tuple(self._found_rules(spec))
        except Permanent:  # whoever fetches it is told
            return spec.url
        needed = rules or (spec.signature is not None and spec.signature.kind)
        return (spec.url, spec.signature, rules) if needed else None

    def demands(self, spec: ArtifactSpec) -> tuple[Demand, ...]:
        """Who asks for signatures of this. Blocks. Raises Permanent, OperatorNeeded("SignersUnusable")."""
        found = []
        if spec.signature is not None and spec.signature.kind:
            found.append(Demand(_of_state(spec.signature.keys), "the state"))
        found += [Demand(self._rules.keys(rule), rule.words) for rule in self._found_rules(spec)]
        return tuple(found)

    def _found_rules(self, spec: ArtifactSpec) -> list[Rule]:
        """The rules for the artifact and for its mirrors: what comes from elsewhere is judged like that."""
        rules = [self._rules.find(url) for url in (spec.url, *spec.mirrors)]
        return list(dict.fromkeys(rule for rule in rules if rule is not None))

    def met(self, spec: ArtifactSpec) -> bool:
        """Whether all that is asked of the pinned `spec` is known to be there. Blocks, seldom long."""
        try:
            demands = self.demands(spec)
        except Failure:  # whoever fetches it is told
            return False
        marks, now = self._marks.of(spec.checksum) if demands else (), time.time()
        return all(any(demand.keys.holds(mark.id, now) for mark in marks) for demand in demands)

    def asked(self, spec: ArtifactSpec) -> str:
        """Whose signatures are asked for, for people; "" when nobody asks. Blocks, seldom long."""
        try:
            demands = self.demands(spec)
        except Failure as failure:
            return failure.info.message
        told = [f"{demand.by} asks for a signature ({' or '.join(demand.keys.kinds)})" for demand in demands]
        return ", ".join(told)

    def signers(self, spec: ArtifactSpec) -> str:
        """Who signed the pinned `spec`, of those who had to, for people; "" when nobody had to. Blocks."""
        try:
            demands = self.demands(spec)
        except Failure:
            return ""
        now = time.time()
        found = [
            mark.name
            for mark in (self._marks.of(spec.checksum) if demands else ())
            if any(demand.keys.holds(mark.id, now) for demand in demands)
        ]
        return ", ".join(found)

    async def ask(self, spec: ArtifactSpec) -> Case | None:
        """Get the signatures that the pinned `spec` needs; None when there is nothing (more) to judge.

        Raises Failure.
        """
        if await asyncio.to_thread(self.met, spec):
            return None
        demands = await asyncio.to_thread(self.demands, spec)
        where = shown(spec.url)
        with telling(self._store.root, where, _DEADLINE):
            async with asyncio.timeout(_DEADLINE):
                if split(spec.url).scheme == SCHEME:
                    await self._judge_image(spec, demands, where)
                    return None
                found = await self._found(spec, demands, where)
        return Case(demands, found, spec.checksum, where, partial(self._marks.add, spec.checksum))

    async def _found(self, spec: ArtifactSpec, demands: tuple[Demand, ...], where: str) -> tuple[Found, ...]:
        """All signature files there are, where they were looked for: at least one. Raises Failure."""
        said = spec.signature
        kinds = dict.fromkeys(kind for demand in demands for kind in demand.keys.kinds)
        found = []
        looked: list[tuple[str, ...]] = []  # each in the order of asking: the first that is there counts
        if said is not None and said.text:
            found.append(Found(said.text.encode(), "artifact.signature.text"))
        if said is not None and said.url:
            looked.append((said.url,))
        if said is not None and (said.text or said.url):
            kinds = dict.fromkeys(kind for kind in kinds if said.kind and kind != said.kind)
        suffixes = dict.fromkeys(suffix for kind in kinds for suffix in SUFFIXES[kind])
        looked += [tuple(_beside(url, suffix) for url in (spec.url, *spec.mirrors)) for suffix in suffixes]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._first(spec, urls)) for urls in looked]
        except BaseExceptionGroup as problems:
            raise problems.exceptions[0] from None
        found += [one for task in tasks if (one := task.result()) is not None]
        if not found:
            raise missing(demands[0], [shown(urls[0]) for urls in looked], where)
        return tuple(found)

    async def _first(self, spec: ArtifactSpec, urls: tuple[str, ...]) -> Found | None:
        """The first of these signature files that is there; None when none is. Raises Failure."""
        failure: Failure | None = None
        for url in urls:
            try:
                if (found := await self._fetch(spec, url)) is not None:
                    return found
            except Failure as problem:
                failure = failure or problem
        if failure is not None:
            raise failure
        return None

    async def _fetch(self, spec: ArtifactSpec, url: str) -> Found | None:
        """One signature file; None when it is not there. Raises Failure."""
        where = shown(url)
        try:
            async with self._opener(spec, url)(None) as body:
                assert body is not None
                meter, pieces = Meter(body.size, _SIGNATURE_MAX, where), []
                while piece := await body.read():
                    meter.add(len(piece))
                    pieces.append(piece)
                meter.end()
        except Permanent as failure:
            if failure.reason == "ArtifactNotFound":
                return None
            raise
        return Found(b"".join(pieces), where)

    async def _judge_image(self, spec: ArtifactSpec, demands: tuple[Demand, ...], where: str) -> None:
        reference, digest = parse(spec.url), f"sha256:{spec.checksum.hex}"
        found = [one async for one in image.signatures(self._registry, reference, digest)]
        await asyncio.to_thread(self._judge, found, spec, demands, digest, where)

    def _judge(
        self,
        found: list[image.Signed],
        spec: ArtifactSpec,
        demands: tuple[Demand, ...],
        digest: str,
        where: str,
    ) -> None:
        marks = []
        for demand in demands:
            said = []
            for one in found:
                try:
                    if not demand.keys.cosign:
                        raise Refused("it is a signature of cosign, and no such key is trusted")
                    marks.append(of_cosign(one.verify(demand.keys.cosign, digest)))
                    break
                except Refused as refused:
                    said.append(f"{one.where}: {refused}")
            else:
                if not found:
                    raise missing(demand, ["its registry"], where)
                raise refusal(said, demand, where)
        self._marks.add(spec.checksum, marks)


def _of_state(text: str) -> KeySet:
    """The keys that the state names. Raises Permanent, OperatorNeeded."""
    try:
        return _parsed(text.encode())
    except KeyInvalid as error:  # the state was read elsewhere, or by an earlier version
        raise Permanent("StateInvalid", f"the key of the signature: {error}") from None
    except openpgp.NotInstalled:
        words = "OpenPGP needs the extra: pip install emptybox[openpgp]"
        raise OperatorNeeded("SignersUnusable", words, where="artifact.signature") from None


def _beside(url: str, suffix: str) -> str:
    """The URL of a file beside another, whose name goes on."""
    path, question, query = url.partition("?")
    return f"{path}{suffix}{question}{query}"
