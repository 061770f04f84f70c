"""The agent's own settings, one row each: flag, EMPTYBOX_ variable, type, help. Read by `agent.config`."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from agent.setting import Setting
from agent.settings_of_artifacts import ARTIFACTS
from agent.settings_values import (
    parse_absolute,
    parse_address,
    parse_count,
    parse_duration,
    parse_header,
    parse_label,
    parse_ports,
    parse_program,
    parse_proxy,
    parse_rewrite,
    parse_signature_rule,
    parse_size,
)

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
        parse_address,
        "address of the admin listener (default: 127.0.0.1:7070)",
    ),
    Setting(
        "webhook", "--webhook", "HOST:PORT", parse_address, "second listener that serves POST /webhook only"
    ),
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
        parse_header,
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
    Setting("labels", "--label", "NAME=VALUE", parse_label, "a label of this host, for `only`", many=True),
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
        parse_proxy,
        "proxy for Git over HTTP(S), http://[USER:PASSWORD@]HOST:PORT",
    ),
    Setting(
        "git_rewrites",
        "--git-rewrite",
        "FROM=TO",
        parse_rewrite,
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
        "known hosts for Git over SSH and SFTP (default: ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts)",
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
        "signature_rules",
        "--require-signature",
        "BEGINNING=FILE",
        parse_signature_rule,
        "artifacts from there (*, a host, a URL's beginning) must be signed by a key in FILE; none: need not",
        many=True,
    ),
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
        parse_program,
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
        "groups",
        "--allow-group",
        "NAME",
        str,
        "group that apps may run with, whose user is no member of it",
        many=True,
    ),
    Setting(
        "weakest_isolation",
        "--weakest-isolation",
        "TIER",
        str,
        "the weakest isolation that a state may ask for: none, standard or strict (default: standard)",
    ),
    Setting(
        "isolation_roots",
        "--isolation-root",
        "DIR",
        parse_absolute,
        "directory below which a state may open paths to an app, where strict is the weakest isolation",
        many=True,
    ),
    Setting(
        "execs",
        "--allow-exec",
        "APP",
        str,
        "app that `emptybox exec` may run commands in; '*': all (default: none)",
        many=True,
    ),
    Setting(
        "container_runtime",
        "--container-runtime",
        "PATH",
        parse_absolute,
        "what makes the containers of `driver: oci` (default: runc, else crun, as installed)",
    ),
    Setting(
        "ports",
        "--allow-port",
        "PORT[-PORT]",
        parse_ports,
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
        parse_absolute,
        "directory below which apps may `place` links to their files",
        many=True,
    ),
    *ARTIFACTS,
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
        "keep_age",
        "--keep-age",
        "DURATION",
        parse_duration,
        "releases that nobody needs go after this long; 0s: never for their age (default: 0s)",
    ),
    Setting(
        "store_size",
        "--store-size",
        "SIZE",
        parse_size,
        "older releases that nobody needs go while all of them take more than this; 0: no bound (default: 0)",
    ),
    Setting(
        "app_log_size",
        "--app-log-size",
        "SIZE",
        parse_size,
        "what apps say is kept on disk, a file of this size each at most; 0: not at all (default: 8M)",
    ),
    Setting(
        "app_log_files",
        "--app-log-files",
        "NUMBER",
        parse_count,
        "such files an app, older ones too (default: 3)",
    ),
    Setting("log_format", "--log-format", "text|json", str, "format of the agent's log (default: text)"),
    Setting("log_level", "--log-level", "LEVEL", str, "debug, info, warning or error (default: info)"),
)
