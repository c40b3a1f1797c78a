"""Puts a checkpoint that the box still holds back into the trainer's folder."""

from __future__ import annotations

import shutil

from remote.agent.paths import Root
from remote.agent.replies import Refusal
from remote.agent.seal import Seal, load_seals
from remote.agent.trees import (
    copy_verified,
    holds_exactly,
    place_folder,
    resolve,
    staging_beside,
)


def restore(root: Root, name: str, digest: str, dest: str) -> None:
    """Build `dest` from the sealed checkpoint `name` with this digest: copies, never links, since
    a trainer may write into them; verified; one rename. Nothing is done when it is there.

    Raises Refusal: not_found when no such seal is held, changed when its bytes are others."""
    place = resolve(dest)
    seal = _find(root, name, digest)
    if holds_exactly(place, seal.manifest):
        return
    staged = staging_beside(place, digest)
    try:
        for entry in seal.manifest.files:
            copy_verified(seal.folder / "tree" / entry.path, staged / entry.path, entry)
        place_folder(staged, place)
    except FileNotFoundError as error:
        raise Refusal("not_found", "%s is not kept here any more" % name) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _find(root: Root, name: str, digest: str) -> Seal:
    for seal in reversed(load_seals(root.seals)):
        if seal.name == name and seal.manifest.digest == digest and seal.is_held:
            return seal
    raise Refusal("not_found", "no checkpoint %s with that digest is held here" % name)
