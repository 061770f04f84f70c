"""The settings for fetching artifacts: authorities, logins, places. Rows of `agent.settings_table`."""

from __future__ import annotations

from pathlib import Path

from agent.setting import Setting
from agent.settings_values import parse_endpoint, parse_host

ARTIFACTS: tuple[Setting, ...] = (
    Setting(
        "artifact_ca",
        "--artifact-ca",
        "FILE",
        Path,
        "authorities trusted for artifacts beside the system's (PEM)",
    ),
    Setting(
        "netrc_file",
        "--netrc-file",
        "FILE",
        Path,
        "logins for http(s) artifacts by host, as netrc(5) has them; read again on each use",
    ),
    Setting(
        "registry_auth_file",
        "--registry-auth-file",
        "FILE",
        Path,
        "logins for OCI registries, as docker's config.json has them; read again on each use",
    ),
    Setting(
        "s3_endpoint",
        "--s3-endpoint",
        "URL",
        parse_endpoint,
        "where s3:// artifacts are, when not at Amazon's (MinIO and others)",
    ),
    Setting("s3_region", "--s3-region", "NAME", str, "region of s3:// artifacts"),
    Setting(
        "s3_credentials_file",
        "--s3-credentials-file",
        "FILE",
        Path,
        "credentials for s3://, as AWS has them; read again on each use (default: what the environment, "
        "a web identity or the instance offers)",
    ),
    Setting(
        "gcs_credentials_file",
        "--gcs-credentials-file",
        "FILE",
        Path,
        "credentials for gs://, as Google has them; read again on each use (default: as for s3://)",
    ),
    Setting(
        "azure_connection_file",
        "--azure-connection-file",
        "FILE",
        Path,
        "connection string for az://; read again on each use (default: as for s3://)",
    ),
    Setting("sftp_key", "--sftp-key", "FILE", Path, "private key for sftp://; read again on each use"),
    Setting(
        "sftp_passphrase_file",
        "--sftp-passphrase-file",
        "FILE",
        Path,
        "file with the passphrase of --sftp-key",
    ),
    Setting(
        "insecure_registries",
        "--insecure-registry",
        "HOST[:PORT]",
        parse_host,
        "OCI registry that is spoken to in plain http",
        many=True,
    ),
)
