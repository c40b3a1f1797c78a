"""One phase of a job, resolved: its machine, what travels, commands, where checkpoints go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.core.bandwidth import Transfer, Window
from orchestrator.core.keep import Keep
from orchestrator.core.metrics import Metric, usual_mode
from orchestrator.core.offer import Need, Offer, Rental
from orchestrator.core.placeholders import fill
from orchestrator.core.plan import CheckpointPlan, PhasePlan, PushPlan, ResumePlan
from orchestrator.core.run import Recovery
from orchestrator.core.spec import Checkpoints, Job, Phase
from orchestrator.errors import BadJobFile, ProviderError
from orchestrator.flows.offers import find_offers
from orchestrator.flows.phase_work import Part, check_checkout, work_of
from orchestrator.flows.sizing import check_fit, forecast_of
from orchestrator.flows.train_files import check_train_files
from orchestrator.ports import Checkout, Provider, Trees

DEFAULT_DISK_GB = 20


@dataclass(frozen=True)
class Shop:
    """What planning needs of the world; `s3_endpoint_url` is empty for Amazon's. `checkout` says
    what a folder's repository has checked out, None without one."""

    trees: Trees
    providers: Mapping[str, Provider]
    check_mirror: Callable[[Path], None]
    claim_mirror: Callable[[Path, str], None]
    s3_endpoint_url: str = ""
    s3_region: str = ""
    free_bytes: Callable[[Path], int | None] = lambda mirror: None
    checkout: Callable[[Path], Checkout | None] = lambda folder: None


def plan_phase(part: Part, shop: Shop) -> PhasePlan:
    """Raises BadJobFile for what the file asks and this machine lacks or another run owns,
    NoCapacity without an offer."""
    phase, job = part.phase, part.job
    if phase.git:
        folder = job.local(job.code.path).resolve()
        check_checkout(phase.git, phase.name, folder, shop.checkout(folder))
    work = work_of(part, shop.trees)
    check_train_files(job, work.uploads)
    need = _need(job)
    offers = find_offers(job, need, shop.providers)
    _check_money(phase, offers, shop.providers)
    plan = PhasePlan(
        name=phase.name,
        need=need,
        offers=offers,
        uploads=work.uploads,
        env=job.env,
        setup=job.setup or "",
        command=work.command,
        train=work.train,
        checkpoints=_checkpoints(part, shop),
        rental=_rental(job),
        recovery=Recovery(job.recovery.host_loss, job.recovery.crash),
        orphan_s=job.recovery.orphan_minutes * 60,
        hang_s=job.recovery.hang_minutes * 60,
        stop_after_steps=phase.stop_after_steps,
        gate=work.gate,
        start=work.start,
        patch=work.patch,
        health=job.health.model_dump(mode="json", exclude_none=True),
        hold_s=phase.hold_minutes * 60,
        key=work.key,
        secrets=job.secrets,
    )
    return _with_forecast(job, plan, shop)


def _check_money(phase: Phase, offers: Sequence[Offer], providers: Mapping[str, Provider]) -> None:
    """S21. Raises BadJobFile when every account that the phase may be paid from tells less than it
    is to cost; one that tells nothing may have enough."""
    cost = phase.gate.cost if phase.gate else None
    if cost is None:
        return
    names = dict.fromkeys(offer.provider for offer in offers)
    have = {name: _balance_usd(providers[name]) for name in names}
    if all(usd is not None and usd < cost.usd for usd in have.values()):
        told = ", ".join(f"{name} has ${usd:.2f}" for name, usd in have.items())
        raise BadJobFile(
            f"gate.cost.usd: phase {phase.name} is to cost ${cost.usd:.2f}, and the account at "
            f"{told}; nothing was rented",
            hint="add money there, or let the phase cost less: `gate: {cost: {usd: …}}`",
        )


def _balance_usd(provider: Provider) -> float | None:
    try:
        return provider.account().balance_usd
    except ProviderError:
        return None


def _with_forecast(job: Job, plan: PhasePlan, shop: Shop) -> PhasePlan:
    """Raises BadJobFile when the checkpoints certainly do not fit."""
    travels = sum(upload.size_bytes for upload in plan.uploads)
    found = forecast_of(job, plan.checkpoints.keep, travels)
    if found is None:
        return plan
    mirror = Path(plan.checkpoints.mirror)
    free_bytes = shop.free_bytes(mirror)
    check_fit(found, plan.need.disk_gb, mirror, free_bytes)
    return replace(plan, disk=found, here_free_bytes=free_bytes)


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


def _checkpoints(part: Part, shop: Shop) -> CheckpointPlan:
    job, spec = part.job, part.job.checkpoints
    mirror = str(job.local(_mirror(part)).resolve())
    if "{run_id}" not in mirror:
        shop.check_mirror(Path(mirror))
    return CheckpointPlan(
        path=spec.path.rstrip("/"),
        layout=spec.layout if isinstance(spec.layout, str) else "custom",
        mirror=mirror,
        resume=ResumePlan(spec.resume.args, spec.resume.env, spec.resume.place or ""),
        also=_also(spec.also, shop),
        keep=_keep(spec),
        transfer=_transfer(spec),
        rule=None if isinstance(spec.layout, str) else spec.layout.model_dump(mode="json"),
    )


def _mirror(part: Part) -> str:
    """Each phase has a folder of its own."""
    name, own = part.phase.name, part.job.checkpoints.mirror
    if own is None:
        own = f"checkpoints/{part.job.name}/{{run_id}}/{{phase}}"
    elif not part.alone and "{phase}" not in own:
        own = f"{own}/{{phase}}"
    return fill(own, {"phase": name})


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
