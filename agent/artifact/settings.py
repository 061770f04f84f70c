"""From the agent's own settings to what fetches its artifacts."""

from __future__ import annotations

from agent.artifact.artifacts import Artifacts
from agent.artifact.git import Packer
from agent.artifact.http_access import HttpAccess
from agent.artifact.s3 import S3Access
from agent.artifact.store import Store
from agent.artifact.trust.rules import Rules
from agent.config import Settings
from agent.ssh.access import SFTP, SshAccess


def artifacts_of(settings: Settings, store: Store, git: Packer) -> Artifacts:
    """Artifacts as the settings let them be reached; `git` gets at repositories."""
    return Artifacts(
        store,
        git=git,
        file_roots=settings.file_roots,
        http=HttpAccess(settings.artifact_ca, settings.netrc_file),
        registry_auth=settings.registry_auth_file,
        insecure_registries=settings.insecure_registries,
        s3=S3Access(
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            credentials=settings.s3_credentials_file,
        ),
        gcs=settings.gcs_credentials_file,
        azure=settings.azure_connection_file,
        sftp=SshAccess(
            settings.sftp_key, settings.sftp_passphrase_file, settings.ssh_known_hosts, words=SFTP
        ),
        rules=Rules(settings.signature_rules),
    )
