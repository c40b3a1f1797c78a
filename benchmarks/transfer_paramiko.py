"""A folder fetched by paramiko's SFTP client, file by file, as fabric and most scripts do it.
Prints JSON."""

from __future__ import annotations

import json
import stat
import sys
import time
from pathlib import Path

import paramiko
from transfer_engine import used_s


def main() -> None:
    asked = json.loads(sys.argv[1])
    cpu_s, began = used_s(), time.monotonic()
    with paramiko.SSHClient() as client:
        client.load_host_keys(asked["known_hosts"])
        client.connect(
            asked["host"],
            asked["port"],
            asked["user"],
            key_filename=asked["key"],
            look_for_keys=False,
            allow_agent=False,
        )
        with client.open_sftp() as sftp:
            fetch(sftp, asked["tree"], Path(asked["dest"]))
    print(json.dumps({"seconds": time.monotonic() - began, "cpu_s": used_s() - cpu_s}))


def fetch(sftp: paramiko.SFTPClient, folder: str, into: Path) -> None:
    into.mkdir()
    for each in sftp.listdir_attr(folder):
        there, here = f"{folder}/{each.filename}", into / each.filename
        if stat.S_ISDIR(each.st_mode or 0):
            fetch(sftp, there, here)
        else:
            sftp.get(there, str(here))


if __name__ == "__main__":
    main()
