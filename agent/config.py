"""The agent's own settings: flags over environment over `--config FILE` over defaults.

`agent.settings_table` names each setting once: flag, EMPTYBOX_ variable, type, help. All problems are
collected and reported together, before anything has an effect. Only these settings, never
the state repository, say what the agent itself may do.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.kit.mask import mask_urls, secrets
from agent.setting import Setting
from agent.settings_table import SETTINGS
from agent.settings_values import Address, parse_duration

__all__ = ["SETTINGS", "Address", "ConfigError", "Settings", "as_rows", "load", "parse_duration"]


class ConfigError(Exception):
    """Everything that is wrong with the settings, one line each in `problems`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def default_data() -> Path:
    """/var/lib/emptybox for root, else below the user's data home (XDG base directories)."""
    if os.geteuid() == 0:
        return Path("/var/lib/emptybox")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "emptybox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings in force. Durations in seconds."""

    repo: str = ""
    ref: str = "HEAD"
    path: str = ""
    data: Path = field(default_factory=default_data)
    admin: Address = field(default_factory=lambda: Address("127.0.0.1", 7070))
    webhook: Address | None = None
    poll: float = 60.0
    webhook_secret_file: Path | None = None
    webhook_header: str = ""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    socket: Path = Path("")
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    name: str = ""
    credentials_file: Path | None = None
    mirrors: tuple[str, ...] = ()
    git_ca: Path | None = None
    git_client_cert: Path | None = None
    git_client_key: Path | None = None
    git_proxy: str = ""
    git_rewrites: tuple[tuple[str, str], ...] = ()
    ssh_key: Path | None = None
    ssh_passphrase_file: Path | None = None
    ssh_known_hosts: tuple[Path, ...] = ()
    ssh_agent: Path | None = None
    ssh_jumps: tuple[str, ...] = ()
    signed: str = ""
    ssh_signers: Path | None = None
    openpgp_keys: Path | None = None
    signature_rules: tuple[tuple[str, Path | None], ...] = ()
    secret_roots: tuple[Path, ...] = (Path("/run/secrets"),)
    secret_env: tuple[str, ...] = ()
    secret_programs: tuple[tuple[str, Path], ...] = ()
    age_identity: Path | None = None
    control_token_file: Path | None = None
    pass_env: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    weakest_isolation: str = "standard"
    execs: tuple[str, ...] = ()
    isolation_roots: tuple[Path, ...] = ()
    container_runtime: Path | None = None
    file_roots: tuple[Path, ...] = ()
    ports: tuple[range, ...] = ()
    place_roots: tuple[Path, ...] = ()
    templates: Path | None = None
    artifact_ca: Path | None = None
    netrc_file: Path | None = None
    registry_auth_file: Path | None = None
    insecure_registries: tuple[str, ...] = ()
    s3_endpoint: str = ""
    s3_region: str = ""
    s3_credentials_file: Path | None = None
    gcs_credentials_file: Path | None = None
    azure_connection_file: Path | None = None
    sftp_key: Path | None = None
    sftp_passphrase_file: Path | None = None
    shutdown_delay: float = 0.0
    grace_period: float = 0.0
    status_token_file: Path | None = None
    status_forge: str = ""
    status_api: str = ""
    public_url: str = ""
    notices: Path | None = None
    keep_age: float = 0.0
    store_size: int = 0
    app_log_size: int = 8 << 20
    app_log_files: int = 3
    log_format: str = "text"
    log_level: str = "info"

    @property
    def stop_room(self) -> float:
        """Seconds left for stopping an app after the delay, by what the platform is said to allow."""
        return self.grace_period - self.shutdown_delay if self.grace_period else math.inf

    def private_places(self) -> tuple[Path, ...]:
        """What no app has any business with: the data directory, keys, tokens and secrets."""
        places = [self.data, self.socket, *self.secret_roots, Path("/etc/emptybox")]
        places += [path for name in PRIVATE_FILES if (path := getattr(self, name)) is not None]
        return tuple(places)


def load(arguments: Sequence[str], environment: Mapping[str, str], *, need_repo: bool = True) -> Settings:
    """Settings from flags, environment and the file named by --config or EMPTYBOX_CONFIG.

    Raises ConfigError with every problem found.
    """
    problems: list[str] = []
    flags, config = _read_flags(arguments, problems)
    config = config or environment.get("EMPTYBOX_CONFIG", "")
    values: dict[str, Any] = _read_file(config, problems) if config else {}
    for setting in SETTINGS:
        text = environment.get(setting.variable)
        if text is not None and text != "":
            texts = text.split(",") if setting.many else [text]
            _store(values, setting, texts, setting.variable, problems)
    for name, (setting, texts) in flags.items():
        values.pop(name, None)
        _store(values, setting, texts, setting.flag, problems)
    _check(values, problems, need_repo)
    if problems:
        raise ConfigError(problems)
    data: Path = Path(values.get("data") or default_data()).absolute()
    values["data"] = data
    values.setdefault("socket", data / "agent.sock")
    values.setdefault("name", socket.gethostname())
    return Settings(**values)


def _read_flags(
    arguments: Sequence[str], problems: list[str]
) -> tuple[dict[str, tuple[Setting, list[str]]], str]:
    by_flag = {s.flag: s for s in SETTINGS}
    found: dict[str, tuple[Setting, list[str]]] = {}
    config = ""
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        flag, equals, text = word.partition("=")
        if flag != "--config" and flag not in by_flag:
            problems.append(f"{word}: unknown argument")
            continue
        if not equals:
            if not rest:
                problems.append(f"{flag}: a value is missing")
                continue
            text = rest.pop(0)
        if flag == "--config":
            config = text
            continue
        setting = by_flag[flag]
        found.setdefault(setting.name, (setting, []))[1].append(text)
    return found, config


def _read_file(name: str, problems: list[str]) -> dict[str, Any]:
    """YAML with the settings' flag names without dashes as keys (webhook-secret-file: …)."""
    import yaml

    try:
        content = yaml.load(Path(name).read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - plain texts only
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{name}: {error}")
        return {}
    if content is None:
        return {}
    if not isinstance(content, dict):
        problems.append(f"{name}: not a mapping of settings")
        return {}
    values: dict[str, Any] = {}
    by_key = {s.flag.removeprefix("--"): s for s in SETTINGS}
    for key, value in content.items():
        setting = by_key.get(str(key))
        if setting is None:
            problems.append(f"{name}: {key}: unknown setting")
            continue
        if setting.many and isinstance(value, dict):
            value = [f"{k}={v}" for k, v in value.items()]
        texts = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        _store(values, setting, texts, f"{name}: {key}", problems)
    return values


def _store(
    values: dict[str, Any], setting: Setting, texts: list[str], where: str, problems: list[str]
) -> None:
    if len(texts) > 1 and not setting.many:
        problems.append(f"{where}: given more than once")
        return
    parsed = []
    for text in texts:
        try:
            parsed.append(setting.parse(text))
        except ValueError as error:
            problems.append(f"{where}: {error}")
            return
    if setting.name == "labels":
        values["labels"] = MappingProxyType({**values.get("labels", {}), **dict(parsed)})
    else:
        values[setting.name] = tuple(parsed) if setting.many else parsed[0]


def _check(values: dict[str, Any], problems: list[str], need_repo: bool) -> None:
    repo = values.get("repo", "")
    if need_repo and not repo:
        problems.append("--repo (or EMPTYBOX_REPO): the state repository is not given")
    elif repo and not re.match(r"(https?|file|ssh)://|[^/\s]+:(?!//)", repo):
        problems.append(f"--repo: {repo!r} is not http://, https://, ssh://, user@host:path or file://")
    problems += _check_signed(values)
    if values.get("poll", 1.0) < 1.0:
        problems.append("--poll: at least 1s")
    if 0 < values.get("app_log_size", 0) < 64 << 10:
        problems.append("--app-log-size: at least 64K, or 0")
    if values.get("weakest_isolation", "none") not in ("none", "standard", "strict"):
        problems.append("--weakest-isolation: none, standard or strict")
    if values.get("log_format", "text") not in ("text", "json"):
        problems.append("--log-format: text or json")
    if values.get("log_level", "info") not in ("debug", "info", "warning", "error"):
        problems.append("--log-level: debug, info, warning or error")


def _check_signed(values: dict[str, Any]) -> list[str]:
    """What is wrong with the settings of signatures."""
    signed, keys = values.get("signed", ""), values.get("ssh_signers") or values.get("openpgp_keys")
    if signed not in ("", "head", "tag", "every"):
        return ["--signed: head, tag or every"]
    if keys and not signed:
        return ["--signed: say what must be signed by the given keys: head, tag or every"]
    if signed and not keys:
        return ["--signed: name the keys that count (--ssh-signers, --openpgp-keys)"]
    if signed == "tag" and values.get("ref", "HEAD") == "HEAD":
        return ["--signed tag: --ref must name the tag"]
    return []


SECRET_FILES = (
    "webhook_secret_file",
    "credentials_file",
    "control_token_file",
    "status_token_file",
    "ssh_passphrase_file",
    "sftp_passphrase_file",
    "age_identity",
)
PRIVATE_FILES = (
    *SECRET_FILES, "git_client_cert", "git_client_key", "ssh_key", "ssh_agent", "registry_auth_file",
    "s3_credentials_file", "notices",
)  # fmt: skip
_SECRET_MAX = 1 << 16  # bytes of a secret file that are looked at


def learn_secrets(settings: Settings) -> None:
    """Have what is in the settings' secret files masked from now on, as far as they can be read."""
    for name in SECRET_FILES:
        path: Path | None = getattr(settings, name)
        if path is not None:
            with contextlib.suppress(OSError), path.open("rb") as file:
                secrets.add(file.read(_SECRET_MAX))


def _shown(value: object) -> str:
    if isinstance(value, range):
        return str(value[0]) if len(value) == 1 else f"{value[0]}-{value[-1]}"
    return "=".join(map(_shown, value)) if isinstance(value, tuple) else str(value or "none")


def as_rows(settings: Settings) -> list[tuple[str, str]]:
    """(name, value) of every setting in force, for `emptybox config`: without contents and passwords."""
    rows = []
    for item in fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, tuple):
            text = ", ".join(map(_shown, value))
        elif isinstance(value, Mapping):
            text = ", ".join(f"{k}={v}" for k, v in value.items())
        else:
            text = "" if value is None else str(value)
        rows.append((item.name, mask_urls(text)))
    return rows
