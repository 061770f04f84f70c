"""What a state file comes to on one host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.domain.artifact_spec import Checksum
from agent.domain.spec import (
    AppSpec,
    DrainSpec,
    HealthSpec,
    HooksSpec,
    MaintenanceSpec,
    ManagedFile,
    MigrationSpec,
    OnChange,
    PortSpec,
    ProbeKind,
    ReloadSpec,
    RestartSpec,
    RunSpec,
    SocketMode,
    StopSpec,
    Swap,
    TaskSpec,
    decode,
    encode,
)
from agent.source.desired import HostView, validate_all, views
from tests.source.state_files import APP, HERE, SHA, mistakes, read, web, with_lines, write

WHOLE = f"""\
schema: 1
vars: {{greeting: hello, ports: [80, 443]}}
apps:
  web:
    only: {{env: [prod, staging], zone: a}}
    version: 1.10
    artifact:
      url: https://releases.example/{{{{ version }}}}/web-{{{{ os }}}}-{{{{ arch }}}}-{{{{ machine }}}}.tar.gz
      checksum: {{linux-amd64: "{SHA}", linux-arm64: "sha512:{"0" * 128}"}}
      strip: 1
      archive: tar.gz
    files:
      - template: templates/web.conf.j2
        target: etc//./web-{{{{ host.labels.env }}}}.conf
        check: [bin/web, --check, "{{{{ target }}}}"]
        on_change: reload
        mode: 0600
      - {{content: "{{{{ vars.greeting }}}} {{{{ host.name }}}}\\n", target: motd}}
    dirs: {{state: data, cache: var/cache, logs: logs}}
    env: {{LOG_LEVEL: info, TIME: 22:30, NO: no, HOST: "{{{{ host.name }}}}", EMPTY: ""}}
    tasks:
      warm: {{after: [start], before: [switch], command: [bin/web, warm], timeout: 30s, retries: 2}}
    migrate:
      - {{name: schema, command: [bin/web, migrate, "{{{{ version }}}}"], timeout: 10m}}
      - {{name: data, command: [bin/web, data]}}
    run:
      command: [bin/web, --greet, "{{{{ vars.greeting }}}}"]
      user: web
      driver: exec
      instances: 1
      stop: {{signal: SIGINT, grace: 500ms}}
      restart: {{backoff: 1s, backoff_max: 1m, budget: 9, window: 2h, cooldown: 0}}
      reload: {{command: [bin/web, reload]}}
    listen: {{http: 8080, metrics: {{port: 9100, address: 127.0.0.1, protocol: tcp}}}}
    socket: fd
    health: {{http: "/{{{{ version }}}}/ok", port: metrics, interval: 250ms, timeout: 1s, successes: 2,
             failures: 4, deadline: 20s, probation: 1m}}
    drain: {{deadline: 5s, connections: true}}
    maintenance: {{page: templates/page.html, hold: 0, retry_after: 1m}}
    hooks: {{init: [bin/web, init], cleanup: [bin/web, bye], crashed: [bin/web, oh], timeout: 5s}}
    keep: 5
"""
FILES = {
    "state.yaml": WHOLE,
    "templates/web.conf.j2": "{% for p in vars.ports %}\nport {{ p }}\n{%- endfor %}\n",
    "templates/page.html": "<h1>{{ phase }}</h1>{% if percent is not none %}{{ percent }} %{% endif %}",
}


def test_every_key_that_has_landed_arrives(tmp_path: Path) -> None:
    (spec,) = read(tmp_path, FILES).apps.values()
    assert spec.artifact is not None
    assert spec.artifact.url == "https://releases.example/1.10/web-linux-amd64-x86_64.tar.gz"
    assert spec.artifact.checksum == Checksum(algorithm="sha256", hex="ab" * 32)
    assert (spec.artifact.strip, spec.artifact.archive) == (1, "tar.gz")
    rest = AppSpec(
        name="web",
        version="1.10",
        artifact=spec.artifact,
        files=(
            ManagedFile(
                target="etc/web-prod.conf",
                content=b"\nport 80\nport 443\n",
                mode=0o600,
                on_change=OnChange.RELOAD,
                check=("bin/web", "--check", "etc/web-prod.conf"),
            ),
            ManagedFile(target="motd", content=b"hello box-1\n", mode=0o640, on_change=OnChange.RESTART),
        ),
        dirs={"state": "data", "cache": "var/cache", "logs": "logs"},
        env={"LOG_LEVEL": "info", "TIME": "22:30", "NO": "no", "HOST": "box-1", "EMPTY": ""},
        tasks=(
            TaskSpec(
                name="warm",
                command=("bin/web", "warm"),
                after=("start",),
                before=("switch",),
                timeout=30.0,
                retries=2,
            ),
        ),
        migrate=(
            MigrationSpec(name="schema", command=("bin/web", "migrate", "1.10"), timeout=600.0),
            MigrationSpec(name="data", command=("bin/web", "data")),
        ),
        run=RunSpec(
            command=("bin/web", "--greet", "hello"),
            user="web",
            stop=StopSpec(signal="INT", grace=0.5),
            restart=RestartSpec(backoff=1.0, backoff_max=60.0, budget=9, window=7200.0, cooldown=0.0),
            reload=ReloadSpec(command=("bin/web", "reload")),
        ),
        listen=(PortSpec(name="http", port=8080), PortSpec(name="metrics", port=9100, address="127.0.0.1")),
        socket=SocketMode.FD,
        swap=Swap.OVERLAP,
        health=HealthSpec(
            kind=ProbeKind.HTTP,
            path="/1.10/ok",
            port="metrics",
            interval=0.25,
            timeout=1.0,
            successes=2,
            failures=4,
            deadline=20.0,
            probation=60.0,
        ),
        drain=DrainSpec(deadline=5.0, connections=True),
        maintenance=MaintenanceSpec(page=FILES["templates/page.html"], hold=0.0, retry_after=60.0),
        hooks=HooksSpec(
            init=("bin/web", "init"), cleanup=("bin/web", "bye"), crashed=("bin/web", "oh"), timeout=5.0
        ),
        keep=5,
    )
    assert spec == rest
    assert decode(encode(spec)) == spec


def test_what_is_not_written_has_its_default(tmp_path: Path) -> None:
    assert read(tmp_path, APP).apps["web"] == AppSpec(
        name="web", version="1.10", run=RunSpec(command=("bin/web",))
    )


@pytest.mark.parametrize(
    ("lines", "socket", "swap", "probe"),
    [
        ("", SocketMode.OWN, Swap.RESTART, ProbeKind.ALIVE),
        ("listen: 80", SocketMode.ADOPT, Swap.OVERLAP, ProbeKind.TCP),
        ("listen: 80\nsocket: adopt", SocketMode.ADOPT, Swap.OVERLAP, ProbeKind.TCP),
        ("listen: 80\nsocket: relay", SocketMode.RELAY, Swap.OVERLAP, ProbeKind.TCP),
        ("listen: 80\nswap: restart", SocketMode.ADOPT, Swap.RESTART, ProbeKind.TCP),
        ("listen: 80\nsocket: fd", SocketMode.FD, Swap.OVERLAP, ProbeKind.TCP),
        ("listen: 80\nsocket: fd\nswap: restart", SocketMode.FD, Swap.RESTART, ProbeKind.TCP),
        ("listen: 80\nhealth: {exec: [true]}", SocketMode.ADOPT, Swap.OVERLAP, ProbeKind.EXEC),
        ("listen: 80\nhealth: {alive: 1s}", SocketMode.ADOPT, Swap.OVERLAP, ProbeKind.ALIVE),
        ("health: {deadline: 1m}", SocketMode.OWN, Swap.RESTART, ProbeKind.ALIVE),
        ("listen: {a: {port: 53, protocol: udp}}", SocketMode.OWN, Swap.RESTART, ProbeKind.ALIVE),
        ("listen: {a: {port: 53, protocol: udp}, b: 53}", SocketMode.ADOPT, Swap.RESTART, ProbeKind.TCP),
    ],
)
def test_how_an_app_swaps_and_is_probed_follows_from_its_socket(
    tmp_path: Path, lines: str, socket: SocketMode, swap: Swap, probe: ProbeKind
) -> None:
    spec = web(tmp_path, lines)
    assert (spec.socket, spec.swap, spec.health.kind) == (socket, swap, probe)


def test_udp_ports_stand_apart_from_those_the_agent_opens(tmp_path: Path) -> None:
    spec = web(tmp_path, "listen: {dns: {port: 53, protocol: udp}, tcp: 53, http: 80}")
    assert spec.udp == (PortSpec(name="dns", port=53),)
    assert [port.name for port in spec.listen] == ["tcp", "http"]


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ("health: {http: /}", ""),
        ("health: {tcp: 81}", "b"),
        ("health: {tcp: b}", "b"),
        ("health: {http: /, port: 81}", "b"),
        ("health: {port: b}", "b"),
    ],
)
def test_a_probe_names_its_port_by_name_or_number(tmp_path: Path, lines: str, port: str) -> None:
    assert web(tmp_path, "listen: {a: 80, b: 81}\n" + lines).health.port == port


@pytest.mark.parametrize(
    ("checksum", "expected"),
    [
        (SHA, Checksum(algorithm="sha256", hex="ab" * 32)),
        ("sha512:" + "AB" * 64, Checksum(algorithm="sha512", hex="ab" * 64)),
        (
            "sha256:https://x.example/{{ version }}/SHA256SUMS",
            Checksum(algorithm="sha256", url="https://x.example/1.10/SHA256SUMS"),
        ),
    ],
)
def test_a_checksum_is_a_digest_or_a_file_that_lists_it(
    tmp_path: Path, checksum: str, expected: Checksum
) -> None:
    spec = web(tmp_path, f'artifact: {{url: "file:///srv/web", checksum: "{checksum}"}}')
    assert spec.artifact is not None
    assert spec.artifact.checksum == expected


@pytest.mark.parametrize(("kind", "digits"), [("sha256", 64), ("sha512", 128), ("sha1", 40), ("md5", 32)])
def test_digits_alone_are_taken_by_their_number_and_weak_kinds_only_if_that_is_said(
    tmp_path: Path, kind: str, digits: int
) -> None:
    spec = web(
        tmp_path, f'artifact: {{url: "file:///srv/web", checksum: "{"0A" * (digits // 2)}", weak: true}}'
    )
    assert spec.artifact is not None
    assert spec.artifact.checksum == Checksum(algorithm=kind, hex="0a" * (digits // 2))


def test_a_signature_s_key_may_stand_in_a_file_of_the_repository(tmp_path: Path) -> None:
    key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
    (tmp_path / "release.pub").write_text(f"untrusted comment: ours\n{key}\n")
    for written in (key, "release.pub"):
        spec = web(
            tmp_path,
            f'artifact: {{url: "file:///srv/web", checksum: "{SHA}", signature: {{minisign: {written}}}}}',
        )
        assert spec.artifact is not None
        assert spec.artifact.signature is not None
        assert spec.artifact.signature.kind == "minisign"
        assert key in spec.artifact.signature.keys


def test_a_migration_alone_needs_neither_list_nor_name(tmp_path: Path) -> None:
    expected = (MigrationSpec(name="migrate", command=("m",)),)
    assert web(tmp_path, "migrate: {command: [m]}").migrate == expected
    assert web(tmp_path, "migrate: [{command: [m]}]").migrate == expected


def test_an_app_is_wanted_where_every_label_fits(tmp_path: Path) -> None:
    text = (
        "apps:\n"
        "  everywhere: {version: 1, run: {command: [x]}}\n"
        "  list: {only: {env: [test, prod]}, version: 1, run: {command: [x]}}\n"
        "  word: {only: {env: prod}, version: 1, run: {command: [x]}}\n"
        "  both: {only: {env: prod, zone: b}, version: 1, run: {command: [x]}}\n"
        "  none: {only: {rack: [r1]}, version: 1, run: {command: [x]}}\n"
    )
    assert list(read(tmp_path, text).apps) == ["everywhere", "list", "word"]
    there = replace(HERE, labels={"env": "prod", "zone": "b", "rack": "r1"})
    assert list(read(tmp_path, text, view=there).apps) == ["everywhere", "list", "word", "both", "none"]
    assert list(read(tmp_path, text, view=HostView("x")).apps) == ["everywhere"]


def test_no_apps_are_a_state_too(tmp_path: Path) -> None:
    assert read(tmp_path, "apps: {}").apps == {}


def test_json_says_the_same_as_yaml(tmp_path: Path) -> None:
    text = (
        '{"apps": {"web": {"version": 1.10, "run": {"command": ["bin/web"]}, "listen": "8080", "keep": 2}}}'
    )
    by_json = read(tmp_path / "json", {"state.json": text}).apps
    assert by_json == read(tmp_path / "yaml", with_lines("listen: 8080\nkeep: 2")).apps


def test_vars_are_texts_lists_and_mappings(tmp_path: Path) -> None:
    text = "vars: {on: true, n: 1.10, list: [a, {b: c}], deep: {x: {y: z}}}\n" + with_lines(
        "env: {A: '{{ vars.on }} {{ vars.n }}', B: '{{ vars.list[1].b }}', C: '{{ vars.deep.x.y }}',\n"
        "      D: '{% if vars.on|bool %}yes{% endif %}'}"
    )
    env = read(tmp_path, text).apps["web"].env
    assert env == {"A": "true 1.10", "B": "c", "C": "z", "D": "yes"}


def test_what_a_variable_holds_is_not_rendered_again(tmp_path: Path) -> None:
    text = "vars: {a: '{{ vars.b }}', b: x}\n" + with_lines("env: {A: '{{ vars.a }}'}")
    assert read(tmp_path, text).apps["web"].env == {"A": "{{ vars.b }}"}


def test_a_template_may_be_a_link_within_the_repository(tmp_path: Path) -> None:
    tree = write(tmp_path, {"state.yaml": with_lines("files: [{template: t, target: a}]"), "real": "x"})
    (tree / "t").symlink_to("real")
    assert read(tree, {}).apps["web"].files[0].content == b"x"


def test_bytes_of_a_file_without_templates_stay_as_they_are(tmp_path: Path) -> None:
    files = {"crlf": "a\r\nb\n\n{ }} %}\n", "tags": "a\r\n{{ version }}\r\n"}
    spec = web(tmp_path, "files: [{template: crlf, target: a}, {template: tags, target: b}]", files)
    assert [f.content for f in spec.files] == [b"a\r\nb\n\n{ }} %}\n", b"a\r\n1.10\r\n"]


def test_a_changed_variable_changes_only_what_is_rendered_from_it(tmp_path: Path) -> None:
    text = "vars: {v: 1}\n" + with_lines("files: [{content: '{{ vars.v }}', target: a}]")
    one = read(tmp_path, text).apps["web"]
    two = read(tmp_path, text.replace("v: 1", "v: 2")).apps["web"]
    assert one.files_digest != two.files_digest
    assert one.digest != two.digest
    assert read(tmp_path, "# a comment\n" + text).apps["web"].digest == one.digest


def test_views_are_the_combinations_that_only_tells_apart(tmp_path: Path) -> None:
    text = (
        "apps:\n"
        "  a: {only: {env: [prod, test]}, version: 1, run: {command: ['{{ host.labels.env }}']}}\n"
        "  b: {only: {env: dev, zone: [b]}, version: 1, run: {command: ['{{ host.labels.zne }}']}}\n"
        "  c: {only: {zone: a}, version: 1, run: {command: [x]}, listen: 80}\n"
        "  d: {only: {env: test}, version: 1, run: {command: [x]}, listen: 80}\n"
    )
    write(tmp_path, {"state.yaml": text})
    found = [dict(view.labels) for view in views(tmp_path, "", HostView("x", {"rack": "r"}))]
    assert found == [
        {"rack": "r", "env": env, "zone": zone} for env in ("prod", "test", "dev") for zone in ("b", "a")
    ]
    assert [str(p) for p in validate_all(tmp_path, "", HostView("x"))] == [
        "state.yaml:3:64 apps.b.run.command[0]: host.labels.zne is not defined, "
        "did you mean host.labels.zone?",
        "state.yaml:5:67 apps.d.listen: d and c (state.yaml:4) both listen on port 80",
    ]
    assert mistakes(tmp_path, {}, view=HostView("x")) == [], "one view does not see them"


def test_views_of_very_many_labels_hold_each_value_once(tmp_path: Path) -> None:
    apps = "".join(
        f"  a{n}: {{only: {{l{n}: [a, b, c]}}, version: 1, run: {{command: [x]}}}}\n" for n in range(9)
    )
    write(tmp_path, {"state.yaml": f"apps:\n{apps}"})
    found = views(tmp_path, "", HostView("x"))
    assert {(label, value) for view in found for label, value in view.labels.items()} == {
        (f"l{n}", value) for n in range(9) for value in "abc"
    }


def test_views_of_what_cannot_be_read_are_the_one_given(tmp_path: Path) -> None:
    write(tmp_path, {"state.yaml": "apps: ["})
    assert views(tmp_path, "", HERE) == [HERE]
    assert len(validate_all(tmp_path, "", HERE)) == 1


def test_this_host_has_an_architecture_in_the_words_of_release_files() -> None:
    view = HostView("x")
    assert view.os == "linux"
    assert view.arch
    assert view.machine
