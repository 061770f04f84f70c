"""SSH connections by asyncssh, for Git and SFTP: hosts judged strictly, keys from files of the settings."""
