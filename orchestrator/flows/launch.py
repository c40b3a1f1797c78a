"""From a job to a plan, and from a plan to a run on record. Nothing here touches a box."""

from __future__ import annotations

import os
import secrets as random
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.core.bandwidth import Transfer, Window
from orchestrator.core.codec import to_json
from orchestrator.core.commands import own_trainer_command
from orchestrator.core.gpus import suggest
from orchestrator.core.keep import Keep
from orchestrator.core.metrics import Metric, usual_mode
from orchestrator.core.offer import ANY_GPU, Need, Offer, Rental, rank
from orchestrator.core.placeholders import fill
from orchestrator.core.plan import PLAN_VERSION, CheckpointPlan, Plan, PushPlan, ResumePlan, Upload
from orchestrator.core.run import Limits
from orchestrator.core.spec import Checkpoints, DataItem, Job
from orchestrator.core.spec.training import record_of
from orchestrator.errors import BadJobFile, Missing, NoCapacity, ProviderError
from orchestrator.flows.sizing import check_fit, forecast_of
from orchestrator.flows.train_files import check_train_files
from orchestrator.ports import Ledger, Provider, Trees

PHASE = "main"
DEFAULT_DISK_GB = 20
TRAINER_CACHE = ".trainer-cache/"
MOST_OFFERS = 256
# What a run keeps to itself, by the file in its folder: NAME=value lines, deleted at its end.
Private = Mapping[str, Mapping[str, str]]
PRIVATE = SECRETS, PUSH_KEYS, VOLUME_KEYS = "secrets.env", "s3.env", "volume.env"


@dataclass(frozen=True)
class Shop:
    """What planning needs of the world; `s3_endpoint_url` is empty for Amazon's."""

    trees: Trees
    providers: Mapping[str, Provider]
    check_mirror: Callable[[Path], None]
    claim_mirror: Callable[[Path, str], None]
    s3_endpoint_url: str = ""
    s3_region: str = ""
    free_bytes: Callable[[Path], int | None] = lambda mirror: None


def make_plan(job: Job, shop: Shop) -> Plan:
    """Resolve a job completely: offers, what travels, commands, where checkpoints go.

    Raises BadJobFile for what the file asks and this machine lacks or another run owns,
    NoCapacity without an offer.
    """
    need = _need(job)
    if job.checkpoints.mirror:
        shop.check_mirror(job.local(job.checkpoints.mirror))
    uploads = _uploads(job, shop.trees)
    check_train_files(job, uploads)
    plan = Plan(
        v=PLAN_VERSION,
        name=job.name,
        folder=str(job.base),
        phase=PHASE,
        need=need,
        offers=_offers(job, need, shop.providers),
        limits=_limits(job),
        uploads=uploads,
        secrets=job.secrets,
        env=job.env,
        setup=job.setup or "",
        command=job.run or own_trainer_command(),
        train=record_of(job.train) if job.train else None,
        checkpoints=_checkpoints(job, job.checkpoints, shop),
        rental=_rental(job),
        orphan_s=job.recovery.orphan_minutes * 60,
    )
    return _with_forecast(job, plan, shop)


def _with_forecast(job: Job, plan: Plan, shop: Shop) -> Plan:
    """Raises BadJobFile when the checkpoints certainly do not fit."""
    travels = sum(upload.size_bytes for upload in plan.uploads)
    found = forecast_of(job, plan.checkpoints.keep, travels)
    if found is None:
        return plan
    mirror = Path(plan.checkpoints.mirror)
    free_bytes = shop.free_bytes(mirror)
    check_fit(found, plan.need.disk_gb, mirror, free_bytes)
    return replace(plan, disk=found, here_free_bytes=free_bytes)


def secret_values(plan: Plan, environ: Mapping[str, str], dotenv: Path) -> dict[str, str]:
    """The values of the plan's secrets: the environment first, then the `.env` file.

    Raises BadJobFile naming every one that is unset, never a value."""
    known = {**_read_dotenv(dotenv), **environ}
    unset = [name for name in plan.secrets if not known.get(name)]
    if unset:
        raise BadJobFile(
            f"the job needs {', '.join(unset)}, and nothing sets it; nothing was rented",
            hint=f"export {unset[0]}=…, or write it to {dotenv}, and launch again",
        )
    broken = [name for name in plan.secrets if "\n" in known[name] or "\0" in known[name]]
    if broken:
        raise BadJobFile(f"the value of {', '.join(broken)} has more than one line")
    return {name: known[name] for name in plan.secrets}


def record(
    plan: Plan, private: Private, *, ledger: Ledger, shop: Shop, state: Path
) -> tuple[str, Plan]:
    """Snapshot the code, keep the secrets, claim the mirror folder, and put the run on record:
    the daemon does the rest. Raises BadJobFile when another run has the folder."""
    run = f"{plan.name}-{random.token_hex(3)}"
    mirror = fill(plan.checkpoints.mirror, {"run_id": run})
    plan = replace(plan, checkpoints=replace(plan.checkpoints, mirror=mirror))
    folder = state / "runs" / run
    try:
        folder.mkdir(parents=True, mode=0o700)
        for upload in plan.uploads:
            if upload.what == "code":
                shop.trees.snapshot(Path(upload.source), upload.tree, folder / "code")
        for name, values in private.items():
            if values:
                _write_private(folder / name, values)
        shop.claim_mirror(Path(mirror), run)
        ledger.create(run, to_json(plan), _planned(plan, private))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Missing(
            f"the state folder {state} cannot be written: {error}; nothing was rented",
            hint="free some room there, or set GPUJOB_HOME to another folder",
        ) from error
    except BaseException:
        # No run, no secrets of one; a Ctrl-C too.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return run, plan


def _planned(plan: Plan, private: Private) -> dict[str, Any]:
    """The run's first event."""
    limits = plan.limits
    return {
        "name": plan.name,
        "folder": plan.folder,
        "mirror": plan.checkpoints.mirror,
        "volume": plan.rental.volume,
        "volume_store": bool(private.get(VOLUME_KEYS)),
        "also": plan.checkpoints.also.uri if plan.checkpoints.also else "",
        "metric": to_json(plan.checkpoints.keep.best) if plan.checkpoints.keep else None,
        "usd_per_hour": plan.offer.usd_per_hour,
        "host_loss": limits.host_loss,
        "crash": limits.crash,
        "budget_usd": limits.budget_usd,
        "budget_hours": limits.budget_hours,
        "budget_usd_per_hour": limits.budget_usd_per_hour,
    }


def _need(job: Job) -> Need:
    resources = job.resources
    return Need(
        gpus=tuple((need.name, need.count) for need in resources.needs),
        disk_gb=resources.disk_gb or DEFAULT_DISK_GB,
        vcpus=resources.vcpus or 0,
        ram_gb=resources.ram_gb or 0,
        region=resources.region or "",
        cloud=resources.cloud or "",
        min_cuda=resources.min_cuda or "",
        volume=(resources.volume.id or "") if resources.volume else "",
    )


def _rental(job: Job) -> Rental:
    resources = job.resources
    volume = resources.volume
    return Rental(
        image=resources.image,
        min_cuda=resources.min_cuda or "",
        volume=(volume.id or "") if volume else "",
        volume_path=volume.path if volume else "/workspace",
        ports=resources.ports,
    )


def _limits(job: Job) -> Limits:
    return Limits(
        host_loss=job.recovery.host_loss,
        crash=job.recovery.crash,
        budget_usd=job.budget.usd,
        budget_hours=job.budget.hours,
        budget_usd_per_hour=job.budget.usd_per_hour,
    )


def _offers(job: Job, need: Need, providers: Mapping[str, Provider]) -> tuple[Offer, ...]:
    """What may be rented, best first. Raises NoCapacity; the provider's own error when none of
    them could be asked."""
    found: list[Offer] = []
    troubles: dict[str, ProviderError] = {}
    for name in job.resources.providers:
        try:
            found += providers[name].offers(need)
        except ProviderError as error:
            troubles[name] = error
    in_stock = [offer for offer in found if offer.stock != "NONE"]
    ceiling = job.budget.usd_per_hour
    fitting = [offer for offer in in_stock if ceiling is None or offer.usd_per_hour <= ceiling]
    if fitting:
        return rank(fitting, job.resources.order, job.resources.providers)[:MOST_OFFERS]
    if len(troubles) == len(job.resources.providers):
        raise next(iter(troubles.values()))
    why = [f"{name}: {error.message}" for name, error in troubles.items()]
    if in_stock:
        cheapest = min(offer.usd_per_hour for offer in in_stock)
        why.insert(0, f"the cheapest costs ${cheapest:.2f}/h and ${ceiling}/h is allowed")
    elif found:
        why.insert(0, f"{len(found)} offers are out of stock")
    wanted = " or ".join(f"{gpu}:{count}" for gpu, count in need.gpus)
    raise NoCapacity(
        "; ".join([f"no offer of {', '.join(job.resources.providers)} fits {wanted}", *why]),
        hint=_what_else(need, providers, job.resources.providers),
    )


def _what_else(need: Need, providers: Mapping[str, Provider], names: Sequence[str]) -> str:
    """GPUs with a name like the one that was asked for, from what is rented out at all."""
    known: set[str] = set()
    for name in names:
        with suppress(ProviderError):
            anything = Need(gpus=((ANY_GPU, 1),), disk_gb=1)
            known |= {offer.gpu for offer in providers[name].offers(anything)}
    close = [each for gpu, _ in need.gpus for each in suggest(gpu, known)]
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{meant}`gpujob offers` lists what there is; `local` offers cpu:N"


def _uploads(job: Job, trees: Trees) -> tuple[Upload, ...]:
    code = job.local(job.code.path).resolve()
    if not code.is_dir():
        raise BadJobFile(f"code.path: {code} is not a folder", hint="correct `code: {path: …}`")
    kept_out = [*job.code.exclude, *_own_output(job, code), TRAINER_CACHE]
    uploads = [_upload(trees, "code", code, "", kept_out)]
    return (*uploads, *(_data(job, item, trees) for item in job.data))


def _own_output(job: Job, code: Path) -> list[str]:
    """What runs wrote into the code folder is no code."""
    mirror = job.checkpoints.mirror or "checkpoints"
    places = [job.local(mirror).resolve(), (code / job.checkpoints.path).resolve()]
    return [
        f"/{place.relative_to(code).as_posix()}/"
        for place in places
        if place != code and place.is_relative_to(code)
    ]


def _data(job: Job, item: DataItem, trees: Trees) -> Upload:
    source = job.local(item.source)
    if not source.exists():
        raise BadJobFile(
            f"data: {item.source} does not exist ({source}); nothing was rented",
            hint="correct `from:` in the job file; paths are relative to the file",
        )
    return _upload(trees, "data", source.resolve(), item.to, (), ignore_files=False)


def _upload(
    trees: Trees,
    what: str,
    source: Path,
    dest: str,
    exclude: Sequence[str],
    *,
    ignore_files: bool = True,
) -> Upload:
    scan = trees.scan(source, exclude, ignore_files=ignore_files)
    manifest = trees.manifest(source, scan)
    folder, root = dest, source
    if source.is_file():
        # A file is a tree of one: `to:` names the file, or a folder when it ends with a slash.
        renamed = dest if dest.endswith("/") or not dest else str(Path(dest).parent)
        folder, root = renamed, source.parent
        if dest and not dest.endswith("/") and Path(dest).name != source.name:
            raise BadJobFile(
                f"data: {source.name} cannot be renamed to {dest} on the way",
                hint=f"write `to: {Path(dest).parent}/` or rename the file",
            )
    return Upload(
        what="code" if what == "code" else "data",
        source=str(root),
        dest=folder.strip("/") or ".",
        files=len(manifest.files),
        size_bytes=manifest.size_bytes,
        digest=manifest.digest,
        manifest=manifest.to_json(),
        skipped=scan.skipped,
    )


def _checkpoints(job: Job, spec: Checkpoints, shop: Shop) -> CheckpointPlan:
    mirror = fill(spec.mirror or f"checkpoints/{job.name}/{{run_id}}/{{phase}}", {"phase": PHASE})
    return CheckpointPlan(
        path=spec.path.rstrip("/"),
        layout=spec.layout if isinstance(spec.layout, str) else "custom",
        mirror=str(job.local(mirror).resolve()),
        resume=ResumePlan(spec.resume.args, spec.resume.env, spec.resume.place or ""),
        also=_also(spec.also, shop),
        keep=_keep(spec),
        transfer=_transfer(spec),
        rule=None if isinstance(spec.layout, str) else spec.layout.model_dump(mode="json"),
    )


def _transfer(spec: Checkpoints) -> Transfer | None:
    if spec.transfer is None:
        return None
    windows = tuple(Window(each.begin, each.end, each.mb_per_s) for each in spec.transfer.windows)
    return Transfer(spec.transfer.mb_per_s, windows)


def _keep(spec: Checkpoints) -> Keep | None:
    if spec.keep is None:
        return None
    best = spec.keep.best
    metric = Metric(best.metric, best.mode or usual_mode(best.metric)) if best else None
    return Keep(spec.keep.last, metric, best.count if best else 1, spec.keep.every)


def _also(uri: str | None, shop: Shop) -> PushPlan | None:
    if uri is None:
        return None
    return PushPlan(uri.rstrip("/"), shop.s3_endpoint_url, shop.s3_region)


def _read_dotenv(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = (
        line.removeprefix("export ").partition("=")
        for line in path.read_text(errors="replace").splitlines()
        if "=" in line and not line.lstrip().startswith("#")
    )
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


def _write_private(path: Path, values: Mapping[str, str]) -> None:
    """NAME=value lines, readable by the owner alone from the first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items())
        file.flush()
        os.fsync(file.fileno())
