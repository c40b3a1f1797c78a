"""What a pod's logs say: the machine's own lines, and those of the image's start script."""

from __future__ import annotations

from clouds.runpod.pods import Pod

OCI = (
    "error starting container: failed to create task: OCI runtime create failed: "
    "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.8"
)


def pulling(pod: Pod) -> list[str]:
    image = pod.config["image"]
    return [f"create container {image}", f"Pulling from {image}", "start container"]


def started(pod: Pod, *, keys: bool) -> list[str]:
    """With the fingerprints of the box's host keys, when it has an ssh server at all."""
    if pod.config["args"]:
        return [f"+ {pod.config['args']}"]
    lines = ["Starting Nginx service...", "Pod Started"]
    if pod.serves_ssh and pod.box:
        lines += ["Setting up SSH..."]
        lines += _fingerprints(pod) if keys else []
    return [*lines, "Exporting environment variables...", "Start script(s) finished, Pod is ready."]


def _fingerprints(pod: Pod) -> list[str]:
    assert pod.box is not None
    lines = []
    for told in pod.box.fingerprints():
        fingerprint, kind = told.split()
        name = kind.strip("()")
        line = f"256 {fingerprint} root@{pod.id}-64411eb2 ({name})"
        path = f"/etc/ssh/ssh_host_{name.lower()}_key.pub"
        lines += [f"{name} key fingerprint:", line, "SSH host keys:", f"Key: {path}", line]
    return lines
