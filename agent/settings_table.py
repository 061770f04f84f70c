"""The agent's own settings, one row each: flag, EMPTYBOX_ variable, type, help. Read by `agent.config`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """500ms, 10s, 10m, 2h, 1d as seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration; write 500ms, 10s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def parse_size(text: str) -> int:
    """0, 512K, 8M or 1G as bytes, in units of 1024. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,9})\s*([KMG]?)i?B?", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size; write 512K, 8M or 1G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,2}", text.strip()):
        raise ValueError(f"{text!r} is not a number from 1 to 999")
    return int(text)


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Address(host.strip("[]") or "127.0.0.1", int(port))


def _host(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(:[0-9]{1,5})?", text):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    return text


def _header(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", text):
        raise ValueError(f"{text!r} is not the name of a header")
    return text


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9._/-]{1,64}", name):
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        raise ValueError(f"{text!r} is not an absolute path of a directory below /")
    return path


def _rewrite(text: str) -> tuple[str, str]:
    begin, equals, instead = text.partition("=")
    if not equals or not re.match(r"[a-z]+://[^/]+/|[^/\s]+:(?!//)", begin):
        raise ValueError("write FROM=TO, two beginnings of URLs, FROM with its host's closing slash")
    return begin, instead


def _ports(text: str) -> range:
    first, _, last = text.partition("-")
    if (
        not first.isdigit()
        or not (last or first).isdigit()
        or not 0 < int(first) <= int(last or first) < 65536
    ):
        raise ValueError(f"{text!r} is not PORT or PORT-PORT")
    return range(int(first), int(last or first) + 1)


def _program(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path.startswith("/"):
        raise ValueError(f"{text!r} is not NAME=/PATH/OF/PROGRAM")
    return name, Path(path)


def _proxy(text: str) -> str:
    if not re.fullmatch(r"http://(?:[^@/\s]*@)?[^@/\s]+/?", text):
        raise ValueError("not http://[USER:PASSWORD@]HOST:PORT")
    return text


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table. `many` settings may be given more than once (comma-separated in variables)."""

    name: str  # the field of Settings
    flag: str
    metavar: str
    parse: Callable[[str], Any]
    help: str
    many: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "EMPTYBOX_" + self.flag.removeprefix("--").replace("-", "_").upper()


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "repo", "--repo", "URL", str, "the state repository: http(s)://, ssh:// or user@host:path, file://"
    ),
    Setting("ref", "--ref", "REF", str, "branch, tag or full commit to follow (default: the remote's HEAD)"),
    Setting("path", "--path", "PATH", str, "state file in the repository (default: state.yaml, .yml, .json)"),
    Setting(
        "data",
        "--data",
        "DIR",
        Path,
        "data directory, one agent each (default: /var/lib/emptybox for root, else ~/.local/share/emptybox)",
    ),
    Setting(
        "admin",
        "--admin",
        "HOST:PORT",
        _address,
        "address of the admin listener (default: 127.0.0.1:7070)",
    ),
    Setting("webhook", "--webhook", "HOST:PORT", _address, "second listener that serves POST /webhook only"),
    Setting(
        "poll",
        "--poll",
        "DURATION",
        parse_duration,
        "interval of polling the state repository (default: 60s)",
    ),
    Setting(
        "webhook_secret_file",
        "--webhook-secret-file",
        "FILE",
        Path,
        "file with the secret of the forge's webhook; read again on each use",
    ),
    Setting(
        "webhook_header",
        "--webhook-header",
        "NAME",
        _header,
        "one more header for a generic sender's signature (besides X-Signature-256 and X-Signature)",
    ),
    Setting(
        "trusted_proxies",
        "--trusted-proxy",
        "CIDR",
        ip_network,
        "network of proxies whose X-Forwarded-For is believed",
        many=True,
    ),
    Setting(
        "socket", "--socket", "PATH", Path, "Unix socket for the command line (default: DATA/agent.sock)"
    ),
    Setting("labels", "--label", "NAME=VALUE", _label, "a label of this host, for `only`", many=True),
    Setting("name", "--name", "NAME", str, "name of this host (default: the system's)"),
    Setting(
        "credentials_file",
        "--credentials-file",
        "FILE",
        Path,
        "credentials for the state repository: a token, or user:password; read again on each use",
    ),
    Setting(
        "mirrors",
        "--mirror",
        "URL",
        str,
        "another place of the state repository, for when --repo does not answer",
        many=True,
    ),
    Setting("git_ca", "--git-ca", "FILE", Path, "authorities trusted for Git over HTTPS beside the system's"),
    Setting("git_client_cert", "--git-client-cert", "FILE", Path, "certificate shown to Git servers (PEM)"),
    Setting(
        "git_client_key", "--git-client-key", "FILE", Path, "its private key (default: in the same file)"
    ),
    Setting(
        "git_proxy",
        "--git-proxy",
        "URL",
        _proxy,
        "proxy for Git over HTTP(S), http://[USER:PASSWORD@]HOST:PORT",
    ),
    Setting(
        "git_rewrites",
        "--git-rewrite",
        "FROM=TO",
        _rewrite,
        "addresses and redirects that begin with FROM go to TO, which gets the credentials",
        many=True,
    ),
    Setting(
        "ssh_key", "--ssh-key", "FILE", Path, "private key for Git over SSH; read again at each connection"
    ),
    Setting(
        "ssh_passphrase_file",
        "--ssh-passphrase-file",
        "FILE",
        Path,
        "file with the passphrase of --ssh-key",
    ),
    Setting(
        "ssh_known_hosts",
        "--ssh-known-hosts",
        "FILE",
        Path,
        "known hosts for Git over SSH (default: ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts)",
        many=True,
    ),
    Setting("ssh_agent", "--ssh-agent", "PATH", Path, "socket of an ssh-agent whose keys may be used"),
    Setting(
        "ssh_jumps",
        "--ssh-jump",
        "[USER@]HOST[:PORT]",
        str,
        "host to reach the Git server through",
        many=True,
    ),
    Setting(
        "signed",
        "--signed",
        "head|tag|every",
        str,
        "what must be signed: the deployed commit, the followed tag, or every commit since the last deployed",
    ),
    Setting(
        "ssh_signers", "--ssh-signers", "FILE", Path, "allowed signers (ssh-keygen), whose signatures count"
    ),
    Setting("openpgp_keys", "--openpgp-keys", "FILE", Path, "OpenPGP public keys whose signatures count"),
    Setting(
        "secret_roots",
        "--secret-root",
        "DIR",
        Path,
        "directory that apps' secrets may come from (default: /run/secrets)",
        many=True,
    ),
    Setting(
        "secret_env", "--secret-env", "NAME", str, "variable of the agent's that apps may have", many=True
    ),
    Setting(
        "secret_programs",
        "--secret-exec",
        "NAME=PROGRAM",
        _program,
        "program that prints a secret, run as the agent",
        many=True,
    ),
    Setting("age_identity", "--age-identity", "FILE", Path, "key for secrets that age encrypted"),
    Setting(
        "control_token_file",
        "--control-token-file",
        "FILE",
        Path,
        "bearer token that opens the control endpoints on the admin listener",
    ),
    Setting(
        "pass_env", "--pass-env", "NAME", str, "variable of the agent's environment that apps get", many=True
    ),
    Setting("users", "--allow-user", "NAME", str, "user that apps may run as", many=True),
    Setting(
        "ports",
        "--allow-port",
        "PORT[-PORT]",
        _ports,
        "ports that apps may listen on (default: all)",
        many=True,
    ),
    Setting(
        "file_roots", "--file-root", "DIR", Path, "directory that file:// artifacts may come from", many=True
    ),
    Setting(
        "templates",
        "--templates",
        "DIR",
        Path,
        "directory with the flat form's template `app`, where the repository has none",
    ),
    Setting(
        "place_roots",
        "--place-root",
        "DIR",
        _absolute,
        "directory below which apps may `place` links to their files",
        many=True,
    ),
    Setting(
        "registry_auth_file",
        "--registry-auth-file",
        "FILE",
        Path,
        "logins for OCI registries, as docker's config.json has them; read again on each use",
    ),
    Setting(
        "insecure_registries",
        "--insecure-registry",
        "HOST[:PORT]",
        _host,
        "OCI registry that is spoken to in plain http",
        many=True,
    ),
    Setting(
        "shutdown_delay",
        "--shutdown-delay",
        "DURATION",
        parse_duration,
        "keep serving this long after TERM (default: 0s)",
    ),
    Setting(
        "grace_period",
        "--grace-period",
        "DURATION",
        parse_duration,
        "what the platform allows from TERM to KILL (a pod's terminationGracePeriodSeconds); apps whose end "
        "may take longer say so (default: not known)",
    ),
    Setting(
        "status_token_file",
        "--status-token-file",
        "FILE",
        Path,
        "token with which commit statuses are set on the forge; read again on each use",
    ),
    Setting(
        "status_forge",
        "--status-forge",
        "NAME",
        str,
        "github, gitea, forgejo, gitlab, bitbucket-cloud or bitbucket-server (default: by --repo)",
    ),
    Setting("status_api", "--status-api", "URL", str, "base of the forge's API (default: by --repo)"),
    Setting("public_url", "--public-url", "URL", str, "where people find this agent: the link of statuses"),
    Setting("notices", "--notices", "FILE", Path, "YAML file that says which chats are told of what"),
    Setting(
        "app_log_size",
        "--app-log-size",
        "SIZE",
        parse_size,
        "what apps say is kept on disk, a file of this size each at most; 0: not at all (default: 8M)",
    ),
    Setting(
        "app_log_files", "--app-log-files", "NUMBER", _count, "such files an app, older ones too (default: 3)"
    ),
    Setting("log_format", "--log-format", "text|json", str, "format of the agent's log (default: text)"),
    Setting("log_level", "--log-level", "LEVEL", str, "debug, info, warning or error (default: info)"),
)
