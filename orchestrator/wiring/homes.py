"""Where checkpoints are: the mirror, S3, and what is published here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from orchestrator.core.checks import Check
from orchestrator.core.run import Run, Seal
from orchestrator.errors import BadJobFile, Missing
from orchestrator.ports import Held, Ledger, Progress, StorePlace
from orchestrator.settings import STORES, Pair, Settings
from orchestrator.wiring.clouds import make_credentials, make_providers
from orchestrator.wiring.ledger import make_clock

if TYPE_CHECKING:
    from orchestrator.adapters.mirror import FolderMirror
    from orchestrator.adapters.s3 import S3Store
    from orchestrator.core.plan import Plan


def make_mirror(folder: Path, run: str, ledger: Ledger) -> FolderMirror:
    from orchestrator.adapters.mirror import FolderMirror

    return FolderMirror(folder, run, ledger.id)


def make_store(settings: Settings, place: StorePlace) -> S3Store:
    """Opened with the keys that the run keeps, or with the user's own once it has ended and kept
    none. Raises Missing without boto3, BadJobFile without keys."""
    s3 = _s3()
    lines = place.keys.read_text() if place.keys.exists() else _own_pair(settings, place.keys.name)
    store: S3Store = s3.S3Store(place, partial(s3.read_keys, lines))
    return store


def fetch_ended(
    settings: Settings, ledger: Ledger, run: Run, seal: Seal, progress: Progress
) -> Run:
    """Bring home a checkpoint of an ended run that is in S3. Raises as `make_store`, and
    NotFound, Refused, Transient, IntegrityError."""
    from orchestrator.core.phase_of import of_phase, serial_of
    from orchestrator.core.plan import read_plan
    from orchestrator.flows import afterwards, stores

    plan = read_plan(ledger.plan(run.id))
    phase = of_phase(run, serial_of(run, seal)).phase
    checkpoints = plan.phases[phase.index if phase else 0].checkpoints
    folder = settings.state / "runs" / run.id
    provider = make_providers(settings, make_clock())[run.find_instance(seal.instance).provider]
    return afterwards.fetch_ended(
        ledger,
        run,
        seal,
        folder,
        mirror=make_mirror(Path(checkpoints.mirror), run.id, ledger),
        store=partial(make_store, settings),
        source=stores.place_of(run, checkpoints.also, seal, folder, provider),
        progress=progress,
    )


def store_keys(settings: Settings, plan: Plan) -> dict[str, dict[str, str]]:
    """The key pairs that a run keeps for itself, by file: for `checkpoints.also`, and for its
    volume where there is a pair. Raises BadJobFile when `also` has none."""
    from orchestrator.flows.launch import PUSH_KEYS, VOLUME_KEYS

    credentials = make_credentials(settings)
    found: dict[str, dict[str, str]] = {}
    if any(phase.checkpoints.also for phase in plan.phases):
        pair = credentials.pair("s3")
        if pair is None:
            raise BadJobFile(
                "checkpoints.also needs keys for S3, and nothing sets them; nothing was rented",
                hint=credentials.pair_advice("s3"),
            )
        _s3()
        found[PUSH_KEYS] = _lines(pair)
    for provider in {offer.provider for offer in plan.offers} if _has_volume(plan) else ():
        pair = credentials.pair(f"{provider}-s3") if f"{provider}-s3" in STORES else None
        if pair is not None:
            found[VOLUME_KEYS] = _lines(pair)
    return found


def check_store(settings: Settings, uri: str) -> Iterator[Check]:
    """Whether the keys that a launch would take open this place: writes, reads and deletes an
    object there."""
    pair = make_credentials(settings).pair("s3")
    if pair is None:
        advice = make_credentials(settings).pair_advice("s3")
        yield Check("S3 keys", "fail", "no keys for S3 are set", advice)
        return
    yield Check("S3 keys", "ok", f"found in {pair.source}")
    s3 = _s3()
    keys = s3.Keys(pair.key_id, pair.secret, pair.token)
    yield from s3.check_place(uri, settings.s3_endpoint_url, settings.s3_region, keys)


def find_published(folder: Path, digest: str, path: str = "") -> Held | None:
    """The published checkpoint with this digest in a mirror folder, of several the one at `path`;
    its bytes are not read. Raises StorageBlocked when the folder is not there."""
    found = [each for each in all_published(folder) if each.manifest.digest == digest]
    return next((each for each in found if str(each.path) == path), found[0] if found else None)


def all_published(folder: Path) -> list[Held]:
    """Every published checkpoint of a mirror folder, by name. Raises as `find_published`."""
    from orchestrator.adapters.published import held
    from orchestrator.adapters.stamp import require_any_stamp

    require_any_stamp(folder)
    return held(folder)


def verify_published(checkpoint: Held, told: Callable[[int], None]) -> list[str]:
    from orchestrator.adapters.published import verify

    return verify(checkpoint, told)


def copy_published(
    checkpoint: Held, dest: Path, paths: Collection[str], told: Callable[[int], None]
) -> bool:
    """A copy of these files of it. Raises as `copy_out`."""
    from orchestrator.adapters.copyout import copy_out

    files = tuple(each for each in checkpoint.manifest.files if each.path in paths)
    return copy_out(checkpoint, dest, files, told=told)


def _own_pair(settings: Settings, file: str) -> str:
    from orchestrator.flows.launch import PUSH_KEYS

    credentials = make_credentials(settings)
    names = [name for name in STORES if (name == "s3") == (file == PUSH_KEYS)]
    for pair in filter(None, map(credentials.pair, names)):
        return "".join(f"{name}={value}\n" for name, value in _lines(pair).items())
    raise BadJobFile(
        "the run has ended and keeps no keys for S3 any more, and nothing else sets them",
        hint=credentials.pair_advice(names[0]),
    )


def _s3() -> ModuleType:
    from importlib import import_module

    try:
        return import_module("orchestrator.adapters.s3")
    except ModuleNotFoundError as error:
        raise Missing(
            f"checkpoints in S3 need the package {error.name}, which is not installed here",
            hint="pip install 'gpujob[s3]'",
        ) from error


def _has_volume(plan: Plan) -> bool:
    return any(phase.rental.volume for phase in plan.phases)


def _lines(pair: Pair) -> dict[str, str]:
    lines = {"KEY_ID": pair.key_id, "SECRET": pair.secret, "TOKEN": pair.token}
    return {name: value for name, value in lines.items() if value}
