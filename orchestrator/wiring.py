"""Settings to adapters, in one visible place. An adapter loads when something needs it, so that
`ps` and `--help` pay for none of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.sqlite import SqliteLedger
from orchestrator.adapters.threads import ThreadTasks
from orchestrator.core.checks import Check, Probe
from orchestrator.core.offer import BootPhase
from orchestrator.core.run import Instance, Run, Seal
from orchestrator.credentials import Credentials
from orchestrator.errors import BadJobFile, GpujobError, Missing
from orchestrator.holder import Holder
from orchestrator.ports import (
    Capabilities,
    Clock,
    Held,
    Ledger,
    Progress,
    Provider,
    StorePlace,
    Trees,
)
from orchestrator.providers import Providers
from orchestrator.settings import STORES, VENDORS, Pace, Pair, Settings
from orchestrator.version import VERSION

USER_AGENT = f"gpujob/{VERSION}"

if TYPE_CHECKING:
    from orchestrator.adapters.http import Api
    from orchestrator.adapters.mirror import FolderMirror
    from orchestrator.adapters.s3 import S3Store
    from orchestrator.adapters.ssh import SshBoxes
    from orchestrator.core.plan import Plan
    from orchestrator.flows.phase_plan import Shop
    from orchestrator.flows.rehearsal.bench import Bench
    from orchestrator.flows.step import World


def make_clock() -> SystemClock:
    return SystemClock()


def open_ledger(settings: Settings) -> SqliteLedger:
    return SqliteLedger(settings.ledger, make_clock(), Holder.current())


@dataclass(frozen=True)
class Parts:
    """What a provider is made of. With `offline` one that refuses is planned with from the prices
    that are remembered."""

    settings: Settings
    clock: Clock
    credentials: Credentials
    offline: bool = False


def make_credentials(settings: Settings, *, kept_first: bool = False) -> Credentials:
    return Credentials(settings, _from_keyring, kept_first=kept_first)


def make_providers(
    settings: Settings,
    clock: Clock,
    credentials: Credentials | None = None,
    *,
    offline: bool = False,
) -> Providers:
    parts = Parts(settings, clock, credentials or make_credentials(settings), offline)
    makers = {name: partial(make, parts) for name, make in _MAKERS.items()}
    return Providers(makers, lambda name: parts.credentials.url(name) if name in VENDORS else "")


def usable_providers(
    settings: Settings, names: Collection[str] = ()
) -> tuple[dict[str, Provider], dict[str, str]]:
    """The providers that have a key or need none, of `names` or of all, and why each other one
    cannot be asked."""
    credentials = make_credentials(settings)
    providers = make_providers(settings, make_clock(), credentials)
    usable, unasked = {}, {}
    for name in names or providers:
        try:
            if name in VENDORS:
                credentials.key(name)
            usable[name] = providers[name]
        except GpujobError as error:
            unasked[name] = error.message
    return usable, unasked


def keep_credentials(settings: Settings, names: Iterable[str], renting: Collection[str]) -> None:
    """Leave for the daemon what opens these providers. Raises GpujobError when that would cut
    off those where live runs rent."""
    make_credentials(settings).keep([name for name in names if name in VENDORS], renting)


def other_addresses(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Of these providers, those whose API is asked for elsewhere than at its vendor."""
    credentials = make_credentials(settings)
    urls = {name: credentials.url(name) for name in names if name in VENDORS}
    return {name: url for name, url in urls.items() if url != VENDORS[name].url}


def _make_local(parts: Parts) -> Provider:
    from orchestrator.adapters.local import LocalProvider

    return LocalProvider(
        parts.settings.state / "local",
        clock=parts.clock,
        private_home=parts.settings.private_home,
        usd_per_hour=parts.settings.usd_per_hour,
    )


def _make_runpod(parts: Parts) -> Provider:
    from orchestrator.adapters.runpod import CAPABILITIES, RunPodProvider

    able = _paced(CAPABILITIES, parts.settings.paces["runpod"])
    able = replace(able, volume_s3=parts.settings.volume_urls.get("runpod", able.volume_s3))
    provider = RunPodProvider(_api(parts, "runpod"), parts.clock, capabilities=able)
    return _remembering(parts, provider)


def _make_thunder(parts: Parts) -> Provider:
    from orchestrator.adapters.exclusive import Exclusive
    from orchestrator.adapters.thunder import CAPABILITIES, ThunderProvider

    pace = parts.settings.paces["thunder"]
    able, user = _paced(CAPABILITIES, pace), pace.user or "ubuntu"
    turn = Exclusive(parts.settings.state / "thunder.turn")
    api = _api(parts, "thunder")
    provider = ThunderProvider(api, parts.clock, user=user, capabilities=able, turn=turn)
    return _remembering(parts, provider)


_MAKERS: Mapping[str, Callable[[Parts], Provider]] = {
    "local": _make_local,
    "runpod": _make_runpod,
    "thunder": _make_thunder,
}
PROVIDERS = tuple(_MAKERS)


def _api(parts: Parts, name: str) -> Api:
    from orchestrator.adapters.http import PER_MINUTE, TIMEOUT_S, Api, Rate

    asked = parts.settings.paces[name]
    return Api(
        parts.credentials.url(name),
        token=partial(parts.credentials.key, name),
        user_agent=USER_AGENT,
        rate=Rate(parts.clock, per_minute=asked.requests_per_minute or PER_MINUTE),
        timeout_s=asked.timeout_s or TIMEOUT_S,
    )


def _remembering(parts: Parts, provider: Provider) -> Provider:
    from orchestrator.adapters.remembered import RememberedOffers

    return RememberedOffers(
        provider,
        parts.settings.state / "prices",
        parts.clock,
        ready=partial(parts.credentials.key, provider.name),
        offline=parts.offline,
    )


def _paced(able: Capabilities, pace: Pace) -> Capabilities:
    """The adapter's own words, but for what the user set."""
    boot: Mapping[BootPhase, float | None] = {
        "assigning": pace.assign_s,
        "starting": pace.start_s,
        "endpoint": pace.endpoint_s,
    }
    return replace(
        able,
        poll_s=_else(pace.poll_s, able.poll_s),
        idle_poll_s=_else(pace.idle_poll_s, able.idle_poll_s),
        listing_lag_s=_else(pace.listing_lag_s, able.listing_lag_s),
        absent_s=_else(pace.absent_s, able.absent_s),
        boot_s={**able.boot_s, **{phase: s for phase, s in boot.items() if s is not None}},
    )


def _else(seconds: float | None, default_s: float) -> float:
    return default_s if seconds is None else seconds


@cache
def _from_keyring(provider: str) -> str | None:
    """`keyring set gpujob PROVIDER`, where the package is installed and has a place for keys."""
    from importlib import import_module

    try:
        found = import_module("keyring").get_password("gpujob", provider)
    except ModuleNotFoundError:
        return None
    except Exception:  # a keyring that is locked or has no backend is no keyring; each has its own
        return None
    return found if isinstance(found, str) else None


def run_checks(settings: Settings) -> Iterator[Check]:
    """What `doctor` shows, one after the other."""
    from orchestrator.adapters.machine import check_machine
    from orchestrator.adapters.probe import probe
    from orchestrator.flows.doctor import check_embedded, check_rented

    yield from check_machine(settings.state)
    clock, credentials = make_clock(), make_credentials(settings)
    providers = make_providers(settings, clock, credentials)

    def reach(name: str) -> Probe:
        return probe(credentials.url(name), clock, USER_AGENT)

    for name in providers:
        provider = partial(providers.__getitem__, name)
        if name not in VENDORS:
            yield check_embedded(name, provider)
            continue
        yield from check_rented(
            name,
            partial(credentials.source, name),
            partial(reach, name),
            provider,
            credentials.advice(name),
        )


def make_trees(settings: Settings) -> Trees:
    from orchestrator.adapters.tree import LocalTrees

    return LocalTrees(settings.state / "hashes.json")


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


def _has_volume(plan: Plan) -> bool:
    return any(phase.rental.volume for phase in plan.phases)


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


def _lines(pair: Pair) -> dict[str, str]:
    lines = {"KEY_ID": pair.key_id, "SECRET": pair.secret, "TOKEN": pair.token}
    return {name: value for name, value in lines.items() if value}


def make_boxes(settings: Settings) -> SshBoxes:
    from orchestrator.adapters.ssh import SshBoxes

    return SshBoxes(settings.state)


def make_shop(settings: Settings, *, offline: bool = False) -> Shop:
    """What `launch` and, `offline`, `plan` plan with."""
    from orchestrator.adapters.git import checkout
    from orchestrator.adapters.stamp import Stamp, check_stamp, set_stamp
    from orchestrator.flows.phase_plan import Shop

    def claim(folder: Path, run: str) -> None:
        set_stamp(folder, Stamp(run, open_ledger(settings).id))

    providers = make_providers(settings, make_clock(), offline=offline)
    return Shop(
        make_trees(settings),
        providers,
        check_stamp,
        claim,
        s3_endpoint_url=settings.s3_endpoint_url,
        s3_region=settings.s3_region,
        free_bytes=_free_bytes,
        checkout=checkout,
    )


def _free_bytes(folder: Path) -> int | None:
    """What may be stored there, or None when the disk does not say."""
    from orchestrator.adapters.disk import Disk, nearest_folder

    try:
        return Disk().space(nearest_folder(folder)).usable_bytes
    except OSError:
        return None


def make_world(settings: Settings) -> World:
    """What the daemon works through."""
    from orchestrator.adapters.zipapp import build_agent, library
    from orchestrator.flows.fleet import Fleet
    from orchestrator.flows.step import World

    clock = make_clock()
    ledger = SqliteLedger(settings.ledger, clock, Holder.current())
    tasks = ThreadTasks(clock)
    credentials = make_credentials(settings, kept_first=True)
    return World(
        ledger=ledger,
        fleet=Fleet(make_providers(settings, clock, credentials), tasks, clock),
        boxes=make_boxes(settings),
        tasks=tasks,
        clock=clock,
        mirror=cache(lambda run, folder: make_mirror(folder, run, ledger)),
        agent=cache(build_agent),
        library=cache(library),
        state=settings.state,
        store=partial(make_store, settings),
        deadlines=settings.deadlines,
    )


def rehearsal_folder(settings: Settings, name: str, *, keep: bool) -> AbstractContextManager[Path]:
    """A place for one rehearsal, and nothing of it afterwards."""
    from orchestrator.adapters.rehearsals import rehearsal_folder as folder

    return folder(settings.state / "rehearsals", name, make_clock(), keep=keep)


def make_bench(
    settings: Settings, folder: Path, environ: Mapping[str, str], tell: Callable[[str], None]
) -> tuple[Bench, World]:
    """What `rehearse` works with: a state folder, a ledger and boxes of its own below `folder`."""
    from orchestrator.adapters import props
    from orchestrator.flows.launch import make_plan
    from orchestrator.flows.rehearsal.bench import Bench
    from orchestrator.flows.rehearsal.props import Makers

    own = replace(settings, state=folder / "state", usd_per_hour=0.0, private_home=False)
    own.state.mkdir(parents=True, mode=0o700)
    real = make_shop(settings, offline=True)
    world = make_world(own)
    bench = Bench(
        folder=folder,
        state=own.state,
        shop=make_shop(own),
        ledger=world.ledger,
        provider=world.fleet.providers["local"],
        clock=world.clock,
        turn=lambda run: 0,
        plan=lambda job: make_plan(job, real),
        makers=Makers(props.shrink_parquet, props.make_model),
        standin=Path(__file__).parents[1] / "remote" / "standin",
        python=sys.executable,
        importable=props.is_importable,
        environ=environ,
        tell=tell,
    )
    return bench, world


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


def attach_command(settings: Settings, run: str, instance: Instance, *, keys: bool) -> list[str]:
    """The ssh command line that shows the trainer's tmux session on the box; without `keys` it
    is for looking, and a Ctrl-C there ends nothing."""
    from orchestrator.core.commands import agent_root
    from orchestrator.flows.box import endpoint_of

    ssh = make_boxes(settings).attach_command(endpoint_of(instance), run)
    return [*ssh, f"cd {agent_root(run)} && exec tmux -S tmux.sock attach{'' if keys else ' -r'}"]
