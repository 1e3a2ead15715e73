"""Who has a GPU, what it costs, and that all of it adds up: data in, data out."""

from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pegel_exporters import catalogue
from pegel_exporters.errors import UserError
from pegel_exporters.exposition import LabelValues
from pegel_exporters.gpu import accounts, prices
from pegel_exporters.gpu.accounts import Account, Accounts, hour_of, state_of
from pegel_exporters.gpu.attribution import Allocation, Allocations, allocations
from pegel_exporters.gpu.cgroups import Place, place_of
from pegel_exporters.gpu.fleet import Watch
from pegel_exporters.gpu.metrics import Gauge
from pegel_exporters.gpu.owners import Owners
from pegel_exporters.gpu.podresources import Holding
from pegel_exporters.gpu.prices import Prices
from pegel_exporters.gpu.readings import Instance, Node, Process, Reading
from pegel_exporters.gpu.shares import Share, shares

UID, CONTAINER = "0f8e7d6c-1111-2222-3333-444455556666", "ab" * 32
A, B, C = "GPU-a", "GPU-b", "GPU-c"
READING = Reading(uuid=A, gpu="0", name="NVIDIA A100", raw={"utilization": 50.0, "energy": 1e6, "memory_used": 7.0})
FOUR = tuple(
    Process(pid=pid, memory_bytes=float(pid), sm_percent=used) for pid, used in ((1, 0), (2, 10), (3, 30), (4, 0))
)
OWNERS = {1: ("shop", "p1"), 2: ("shop", "p2"), 3: ("shop", "p3"), 4: ("kube-system", "other")}


def gauges_of(*readings: Reading, at: float = 0.0) -> tuple[Gauge, ...]:
    watch = Watch(stale_after=15.0)
    watch.took(Node(time=0.0, driver_version="1", cuda_version="12", simulated=False, gpus=readings), at)
    return watch.fleet(at).gauges


def held(pod: str, uuid: str = A, attribution: str = "exclusive", mig_uuid: str = "") -> Allocation:
    return Allocation(
        namespace="shop", pod=pod, container="model", uuid=uuid, mig_uuid=mig_uuid, attribution=attribution,
    )  # fmt: skip


def of(kept: Accounts, uuid: str) -> dict[LabelValues, Account]:
    """The accounts of a GPU, by their labels."""
    return {labels: account for labels, account in kept.all().items() if labels[3] == uuid}


def total(kept: Accounts) -> Account:
    """Everything together."""
    return reduce(Account.plus, kept.all().values(), Account())


@pytest.mark.parametrize(
    ("text", "uid", "container"),
    [
        (f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice/"
         f"cri-containerd-{CONTAINER}.scope", UID, CONTAINER),
        (f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{CONTAINER}.scope", UID, CONTAINER),
        (f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{CONTAINER}.scope/container",
         UID, CONTAINER),
        (f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID.replace('-', '_')}.slice/"
         f"docker-{CONTAINER}.scope", UID, CONTAINER),
        (f"0::/kubepods/burstable/pod{UID}/{CONTAINER}", UID, CONTAINER),
        (f"0::/kubepods/pod{UID}/{CONTAINER}", UID, CONTAINER),
        (f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
         f"kubelet-kubepods-besteffort-pod{UID.replace('-', '_')}.slice/cri-containerd-{CONTAINER}.scope",
         UID, CONTAINER),
        (f"0::/system.slice/containerd.service/kubepods-burstable-pod{UID}.slice:cri-containerd:{CONTAINER}",
         UID, CONTAINER),
        (f"12:pids:/kubepods/besteffort/pod{UID}/{CONTAINER}\n11:memory:/kubepods/besteffort/pod{UID}/{CONTAINER}\n",
         UID, CONTAINER),
        (f"0::/kubepods/burstable/pod{'c0ffee12' * 4}/{CONTAINER}", "c0ffee12" * 4, CONTAINER),
        (f"0::/../../kubepods-burstable-pod{UID.replace('-', '_')}.slice/cri-containerd-{CONTAINER}.scope",
         UID, CONTAINER),
        (f"0::/kubepods/burstable/pod{UID}", UID, ""),
    ],
)  # fmt: skip
def test_every_form_of_control_groups_names_the_pod_and_its_container(text: str, uid: str, container: str) -> None:
    assert place_of(text) == Place(uid, container)


@pytest.mark.parametrize(
    "text", ["", "0::/", "0::/system.slice/sshd.service", f"0::/docker/{CONTAINER}", "0::/user.slice/podium.scope"]
)
def test_a_process_outside_of_pods_is_in_none(text: str) -> None:
    assert place_of(text) is None


def test_a_process_is_its_pods_while_it_runs_and_its_number_is_not_taken_for_another(tmp_path: Path) -> None:
    proc, logs = tmp_path / "proc", tmp_path / "logs"
    (logs / f"shop_checkout-7d9_{UID}").mkdir(parents=True)

    def runs(pid: int, began: int, group: str) -> None:
        (proc / str(pid)).mkdir(parents=True, exist_ok=True)
        (proc / str(pid) / "stat").write_text(f"{pid} (a (b) c) S " + " ".join(["0"] * 18) + f" {began} 0 0")
        (proc / str(pid) / "cgroup").write_text(group)

    runs(7, 100, f"0::/kubepods/pod{UID}/{CONTAINER}")
    runs(8, 100, "0::/system.slice/sshd.service")
    owners = Owners(proc, logs)
    assert owners.of([7, 8, 9]) == {7: ("shop", "checkout-7d9")}
    (proc / "7" / "cgroup").write_text("0::/")
    assert owners.of([7]) == {7: ("shop", "checkout-7d9")}, "the same process isn't read again"
    runs(7, 200, "0::/system.slice/sshd.service")
    assert owners.of([7]) == {}
    assert Owners(proc, tmp_path / "missing").of([7, 8]) == {}


def test_a_process_that_names_itself_in_half_a_character_has_its_pod_like_others(tmp_path: Path) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/8").mkdir()
    (tmp_path / f"logs/shop_checkout_{UID}").mkdir(parents=True)
    (tmp_path / "proc/7/stat").write_bytes(b"7 (xxxxxxxxxxxxxx\xc3) S " + b" ".join(b"%d" % n for n in range(60)))
    (tmp_path / "proc/7/cgroup").write_bytes(b"0::/\xff/kubepods/pod" + UID.encode())
    (tmp_path / "proc/8/stat").write_bytes(b"8 (short")
    assert Owners(tmp_path / "proc", tmp_path / "logs").of([7, 8, 9]) == {7: ("shop", "checkout")}


def test_a_gpu_held_alone_is_all_its_holders() -> None:
    (share,) = shares(Allocations(held=(held("p1"),)), gauges_of(READING), {})
    assert (share.attribution, share.fraction, share.memory_bytes) == ("exclusive", 1.0, 7.0)


def test_four_pods_on_a_gpu_have_each_what_its_processes_use_and_together_the_gpu() -> None:
    four = tuple(held(f"p{number}", attribution="equal_share") for number in (1, 2, 3, 5))
    drawing = replace(FOUR[1], kind="graphics")
    found = shares(Allocations(held=four), gauges_of(replace(READING, processes=(*FOUR, drawing))), OWNERS)
    assert {one.pod: (one.attribution, one.fraction) for one in found} == {
        "p1": ("process", 0.0), "p2": ("process", 0.25), "p3": ("process", 0.75), "p5": ("process", 0.0),
    }  # fmt: skip
    assert {one.pod: one.memory_bytes for one in found} == {"p1": 1.0, "p2": 2.0, "p3": 3.0, "p5": None}


@pytest.mark.parametrize("owners", [{}, {1: ("shop", "p1")}], ids=["no owners", "no use"])
def test_where_nothing_was_measured_shares_are_equal_and_say_so(owners: dict[int, tuple[str, str]]) -> None:
    three = tuple(held(f"p{number}", attribution="equal_share") for number in (1, 2, 3))
    found = shares(Allocations(held=three), gauges_of(replace(READING, processes=FOUR)), owners)
    assert [(one.attribution, one.fraction) for one in found] == [("equal_share", 1 / 3)] * 3


CUT = replace(
    READING,
    raw={"energy": 1e6, "mig_mode": 1.0, "max_migs": 7.0},
    instances=tuple(
        Instance(uuid=f"MIG-{UID[:-1]}{number}", profile=profile, gpu_instance=number, compute_instance=0,
                 slices=slices, raw={"memory_used": 5.0})
        for number, (profile, slices) in enumerate((("3g.20gb", 3), ("2g.10gb", 2), ("1g.5gb", 1)), 1)
    ),
    uuid=f"GPU-{UID}", minor_number="0",
)  # fmt: skip


@pytest.mark.parametrize("device", [CUT.instances[0].uuid, "nvidia0/gi1"])
def test_a_mig_devices_id_leads_to_its_gpu_its_profile_and_its_memory(device: str) -> None:
    told = allocations([Holding("shop", "p1", "model", "nvidia.com/mig-3g.20gb", (device,))], [CUT])
    (share,) = shares(told, gauges_of(CUT), {})
    assert (share.uuid, share.mig_uuid, share.mig_profile) == (CUT.uuid, CUT.instances[0].uuid, "3g.20gb")
    assert (share.attribution, share.memory_bytes) == ("mig", 5.0)


def test_an_hour_of_a_cut_up_gpu_costs_each_its_slices_and_the_rest_nobody() -> None:
    told = allocations(
        [Holding("shop", f"p{n}", "model", "nvidia.com/mig-x", (CUT.instances[n].uuid,)) for n in (0, 1)], [CUT]
    )
    kept = Accounts(Prices(gpus={"A100": 7.0}))
    for second in range(0, 3601, 30):
        energy = {**CUT.raw, "energy": 1e6 + 1e3 * second}
        gauges = gauges_of(replace(CUT, raw=energy), at=float(second))
        kept.take(gauges, shares(told, gauges, {}), float(second))
    by_pod = {labels[1]: account for labels, account in of(kept, CUT.uuid).items()}
    assert by_pod["p0"].cost == pytest.approx(3.0)
    assert by_pod["p1"].cost == pytest.approx(2.0)
    assert by_pod[""].cost == pytest.approx(2.0)
    assert total(kept).seconds == pytest.approx(3600)
    assert total(kept).joules == pytest.approx(3600)
    assert total(kept).idle_seconds == 0, "what it does isn't known"


def test_a_mig_device_with_a_price_of_its_own_costs_that_and_the_gpu_what_its_parts_do() -> None:
    table = Prices(
        gpus={"A100": 7.0}, profiles={"3g.20gb": 9.0, "A100 3g.20gb": 4.0, "H100 2g.10gb": 50.0, "1g.5gb": 0.5}
    )
    told = allocations(
        [Holding("shop", f"p{n}", "model", "nvidia.com/mig-x", (CUT.instances[n].uuid,)) for n in (0, 1)], [CUT]
    )
    kept = Accounts(table)
    for second in range(0, 3601, 30):
        gauges = gauges_of(CUT, at=float(second))
        kept.take(gauges, shares(told, gauges, {}), float(second))
    by_pod = {labels[1]: account for labels, account in of(kept, CUT.uuid).items()}
    assert by_pod["p0"].cost == pytest.approx(4.0), "the longest word decides"
    assert by_pod["p1"].cost == pytest.approx(2.0), "its slices, since the table has none of an A100"
    assert by_pod[""].cost == pytest.approx(0.5 + 1.0), (
        "the part that nobody holds, and the slice that is cut into none"
    )
    price = next(f for f in accounts.families(gauges, (), table) if f.metric == catalogue.GPU_PRICE)
    assert list(price.samples.values()) == [pytest.approx(total(kept).cost)] == [pytest.approx(7.5)]


@given(st.lists(st.sampled_from(["whole", "0", "1", "2"]), max_size=6), st.floats(0, 100), st.floats(0, 100))
def test_whatever_a_kubelet_tells_a_cut_up_gpu_costs_what_its_parts_do(
    who: list[str], whole: float, part: float
) -> None:
    table = Prices(gpus={"A100": whole}, profiles={"3g.20gb": part})
    held_by = [
        Holding(
            "shop", f"p{n}", "model", "nvidia.com/gpu", (CUT.uuid if of == "whole" else CUT.instances[int(of)].uuid,)
        )
        for n, of in enumerate(who)
    ]
    kept, told = Accounts(table), allocations(held_by, [CUT])
    for second in (0.0, 60.0):
        kept.take(gauges_of(CUT, at=second), shares(told, gauges_of(CUT, at=second), {}), second)
    assert total(kept).seconds == pytest.approx(60)
    assert total(kept).cost == pytest.approx(hour_of(gauges_of(CUT)[0], table) / 60, abs=1e-9)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[float, tuple[Gauge, ...], tuple[Share, ...] | None]]:
    """Readings of up to three GPUs that come and go, with holders that come and go."""
    now, found = 0.0, []
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.sampled_from([0.5, 5.0, 30.0]))
        listed = draw(st.lists(st.sampled_from([A, B, C]), min_size=1, unique=True))
        lost = draw(st.sampled_from([None, A]))
        readings = tuple(
            replace(READING, uuid=uuid, gpu=str(index), error="GPU is lost" if uuid == lost else "", processes=FOUR)
            for index, uuid in enumerate(listed)
        )
        alone = draw(st.lists(st.sampled_from(listed), unique=True))
        shared = draw(st.integers(0, 3)) if alone != listed else 0
        free = [uuid for uuid in listed if uuid not in alone]
        all_held = [held(f"alone-{uuid}", uuid) for uuid in alone]
        all_held += [held(f"p{number}", free[0], "equal_share") for number in range(shared)] if free else []
        gauges = gauges_of(*readings, at=now)
        owners = draw(st.sampled_from([{}, OWNERS]))
        told = shares(Allocations(held=tuple(all_held)), gauges, owners)
        found.append((now, gauges, draw(st.sampled_from([None, told, told, told]))))
    return found


@given(histories())
def test_pods_and_what_nobody_held_add_up_to_the_node(
    history: list[tuple[float, tuple[Gauge, ...], tuple[Share, ...] | None]],
) -> None:
    kept = Accounts(Prices(gpus={"A100": 3600.0}))
    last, owed = None, 0.0
    for now, gauges, told in history:
        kept.take(gauges, told, now)
        owed += 0.0 if last is None else (now - last) * len(gauges)
        last = now
    assert total(kept).seconds == pytest.approx(owed)
    assert total(kept).cost == pytest.approx(owed)


def test_what_a_pod_has_had_is_told_for_ten_minutes_after_it_and_then_forgotten() -> None:
    kept, gauges = Accounts(Prices()), gauges_of(READING)
    told = shares(Allocations(held=(held("p1"),)), gauges, {})
    for now in (0.0, 10.0):
        kept.take(gauges, told, now)
    for now in range(20, 611, 10):
        kept.take(gauges, (), float(now))
    assert ("shop", "p1") in {labels[:2] for labels in of(kept, A)}
    kept.take(gauges, (), 620.0)
    assert {labels[:2] for labels in of(kept, A)} == {("", "")}


def test_a_machine_that_slept_owes_nothing_for_it() -> None:
    kept = Accounts(Prices())
    kept.take(gauges_of(READING), (), 0.0)
    kept.take(gauges_of(READING), (), 7_200.0)
    assert total(kept).seconds == 0


def test_two_pods_that_both_have_a_gpu_alone_do_not_make_it_dearer() -> None:
    kept, told = Accounts(Prices()), (held("p1"), held("p2"))
    both = tuple(share for one in told for share in shares(Allocations(held=(one,)), gauges_of(READING), {}))
    for now in (0.0, 10.0):
        kept.take(gauges_of(READING), both, now)
    assert total(kept).seconds == 10


def test_a_mig_device_is_idle_by_itself_beside_a_busy_one() -> None:
    busy, still, _ = CUT.instances
    told = replace(
        CUT,
        instances=(replace(busy, raw={"gpm_1": 80.0}), replace(still, raw={"gpm_1": 0.0})),
    )
    who = allocations(
        [Holding("shop", one.profile, "model", "nvidia.com/mig-x", (one.uuid,)) for one in told.instances], [told]
    )
    kept = Accounts(Prices())
    for now in (0.0, 7.0):
        kept.take(gauges_of(told), shares(who, gauges_of(told), {}), now)
    idle = {labels[1]: account.idle_seconds for labels, account in of(kept, CUT.uuid).items() if labels[1]}
    assert idle == {"3g.20gb": 0.0, "2g.10gb": pytest.approx(2.0)}


def test_readings_that_are_minutes_apart_count_where_that_is_the_interval() -> None:
    kept = Accounts(Prices(), longest=360.0)
    for now in (0.0, 120.0, 240.0):
        kept.take(gauges_of(READING), (), now)
    assert total(kept).seconds == 240


def test_while_it_is_not_known_who_holds_a_gpu_its_time_is_not_called_unallocated() -> None:
    kept = Accounts(Prices())
    for now in (0.0, 10.0):
        kept.take(gauges_of(READING), None, now)
    ((labels, account),) = of(kept, A).items()
    assert (labels[-1], account.seconds) == ("unknown", 10.0)


@pytest.mark.parametrize(
    ("reading", "of_pod", "state"),
    [
        (READING, True, "active"),
        (replace(READING, raw={"utilization": 0.0}), True, "idle_held"),
        (replace(READING, raw={"utilization": 0.0}, processes=FOUR), False, "idle_held"),
        (replace(READING, raw={"utilization": 0.0}), False, "idle"),
        (replace(READING, error="GPU is lost"), True, "lost"),
        (CUT, True, "unknown"),
        (replace(READING, raw={}), False, "unknown"),
    ],
)
def test_a_gpus_state_is_what_is_known_of_it(reading: Reading, of_pod: bool, state: str) -> None:
    (gauge,) = gauges_of(reading)
    assert state_of(gauge, held=of_pod) == state
    told = accounts.families((gauge,), (), Prices())
    if not of_pod:
        states = {labels[-1]: value for labels, value in told[0].samples.items()}
        assert states == {one: float(one == state) for one in accounts.STATES}


def test_energy_that_is_not_known_has_no_series() -> None:
    kept = Accounts(Prices())
    kept.take(gauges_of(replace(READING, raw={"utilization": 1.0})), (), 0.0)
    energy = next(family for family in kept.families() if family.metric == catalogue.GPU_POD_ENERGY)
    assert not energy.samples


def test_a_price_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "currency: chf\ndefault: 0.5\ngpus: {A100: 2, 'A100-SXM4-80GB': 2.5}\n"
        "profiles: {A100 3g.20gb: 0.9, 1g.10gb+me: 0.3}\n"
    )
    told = prices.load(tmp_path / "p.yaml")
    assert (told.currency, told.hour("NVIDIA A100-PCIE"), told.hour("NVIDIA B300")) == ("CHF", 2.0, 0.5)
    assert told.device_hour("NVIDIA A100-PCIE", "3g.20gb") == 0.9
    assert told.device_hour("NVIDIA H100", "3g.20gb") is None
    assert told.device_hour("NVIDIA H100", "1g.10gb+me") == 0.3
    assert Prices(profiles={"1c.3g.20gb": 0.2}).device_hour("NVIDIA A100", "1c.3g.20gb") == 0.2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gpus: [", "not a YAML file"),
        ("- 1", "expected currency, default, gpus and profiles"),
        ("price: 1", "'price' is not known; known: currency, default, gpus, profiles"),
        ("gpus: 3", "'gpus' must be prices by model"),
        ("profiles: {small: 1}", "'profiles' must be prices by MIG profile, such as 3g.20gb: 0.9"),
        ("profiles: {1g.5gb: -1}", "the price of '1g.5gb' must be a number, 0 or more"),
        ("gpus: {A100: cheap}", "the price of 'A100' must be a number, 0 or more"),
        ("default: -1", "'default' must be a number, 0 or more"),
        ("currency: €", "'currency' must be three letters"),
        ("currency: äöü", "'currency' must be three letters"),
        ("gpus: {'': 5}", "a price without a word of a model's name"),
        ("gpus: {' ': 5}", "a price without a word of a model's name"),
        ("gpus: {null: 5}", "a price without a word of a model's name"),
        ("default: 2024-13-45", "not a YAML file: month must be in 1..12"),
    ],
)
def test_a_malformed_price_table_is_refused_in_one_line_with_its_place(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError) as refusal:
        prices.load(tmp_path / "p.yaml")
    assert reason in str(refusal.value)
    assert "p.yaml" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match="cannot read the prices"):
        prices.load(tmp_path / "missing.yaml")
