"""Several networks on one bitstream: resident side by side, switched by registers alone, each refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from host.accelerator import Accelerator
from host.bundle import load_bundle, load_network
from host.measure import measure_switch, switch_line
from hw.generate import make_project, write_project
from hw.interface import Error
from hw.step_table import HEADER, STEP, table_checksum
from hw.target import resolve_target
from hw.weights import stream_checksum
from sim.device.emulated import NEVER, Fault
from spvit.config import PruningConfig
from spvit.errors import (
    BundleError,
    DeviceBusyError,
    DeviceError,
    DeviceMemoryError,
    DeviceTimeoutError,
    RefusedError,
    WeightsChangedError,
)
from tests.host.test_accelerator import check
from tests.sim.networks import MICRO, design_of, micro, random_network


@pytest.fixture(scope="session")
def smaller(build, tmp_path_factory):
    """Another architecture on the same design: fewer heads, blocks, rows, classes and selectors, a smaller image."""
    model = replace(MICRO.model, name="smaller", img_size=8, embed_dim=MICRO.model.embed_dim // 2, depth=2,
                    num_heads=MICRO.model.num_heads // 2, num_classes=3)  # fmt: skip
    network = random_network(np.random.default_rng(5), model, PruningConfig(locations=(1,)))
    return build.with_network(network, tmp_path_factory.mktemp("host") / "smaller")


def repack(build, folder, change):
    """A copy of the build's network whose stream `change` has seen; its manifest is true to it."""
    shutil.copytree(build.folder / "weights", folder)
    manifest = json.loads((folder / "network.json").read_text())
    paths = sorted(folder.glob("weights_*.bin"))
    words = np.stack(
        [np.fromfile(path, np.int16).reshape(manifest["shapes"]["num_words"], -1) for path in paths], axis=1
    )
    words = change(words.reshape(len(words), -1))
    for path, stripe in zip(paths, words.reshape(len(words), len(paths), -1).swapaxes(0, 1), strict=True):
        path.write_bytes(np.ascontiguousarray(stripe).tobytes())
        manifest["sha256"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest["shapes"]["num_words"] = len(words)
    manifest["weights_checksum"] = stream_checksum(np.ascontiguousarray(words))
    (folder / "network.json").write_text(json.dumps(manifest))
    return folder


def rewrite(folder, **fields):
    """Set fields of the network's manifest."""
    path = folder / "network.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


# --- side by side ---


def test_two_networks_alternate_a_hundred_times_each_right(build, unpruned):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        other = accelerator.load(unpruned.folder)
        flushed = []
        flush = device.flush
        device.flush = lambda bo, *rest: (flushed.append(bo), flush(bo, *rest))
        for turn in range(100):
            image = turn % len(build.pixels)
            check(build, accelerator.infer(build.pixels[image]), [image])
            check(unpruned, other.infer(unpruned.pixels[image]), [image])
        weights = {id(each.bo) for network in accelerator.networks for each in network.memory.values()}
        assert len(weights) == 4
        assert not weights & set(map(id, flushed))  # sent once, when they were loaded
    assert (device.downloads, device.kernel.runs, device.kernel.failures) == (1, 200, [])
    assert not np.array_equal(build.golden.logits, unpruned.golden.logits)


def test_another_architecture_on_the_same_bitstream(build, unpruned, smaller):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        own, *others = accelerator.network, accelerator.load(unpruned.folder), accelerator.load(smaller.folder)
        for _ in range(2):
            for one, network in zip((smaller, build, unpruned), (others[1], own, others[0]), strict=True):
                check(one, network.infer(one.pixels))
    shapes, model = others[1].packed.shapes, smaller.design.network.model
    assert (shapes.num_classes, shapes.img_size, shapes.num_stages, shapes.num_tokens) == (3, 8, 1, model.num_tokens)


def test_a_switch_writes_registers_and_nothing_else(build, unpruned):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        other = accelerator.load(unpruned.folder)
        accelerator.network.activate()
        device.flush = device.download = None  # neither is needed
        written = []
        write = device.kernel.write
        device.kernel.write = lambda offset, value: (written.append(offset), write(offset, value))
        registers = other.activate()
        own = [register.offset for register in accelerator.bundle.interface.registers if register.offset >= 0x10]
        assert sorted(set(written)) == sorted(own) and registers == len(own)
        assert other.activate() == 0
        switch = measure_switch(accelerator.network, other, 4)
        assert switch.registers == registers and switch.is_emulated and switch.host_ms.median > 0
        line = (
            f"from one network to the other: {registers} registers, .* ms .*EMULATED.*; one bitstream, no weights sent"
        )
        assert re.fullmatch(line, switch_line(switch))


def test_a_closed_network_frees_its_weights_alone(build, unpruned):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        before = device.memory.bytes_in_use
        other = accelerator.load(unpruned.folder)
        check(unpruned, other.infer(unpruned.pixels))
        assert device.memory.bytes_in_use > before
        other.close()
        other.close()
        assert device.memory.bytes_in_use == before
        with pytest.raises(DeviceError, match=r"^.*micro-keep-none/weights: this network was closed; load it again$"):
            other.infer(unpruned.pixels)
        check(build, accelerator.infer(build.pixels))
        again = accelerator.load(unpruned.folder)  # where the closed one lay, perhaps
        check(unpruned, again.infer(unpruned.pixels))
    assert device.memory.bytes_in_use == 0
    again.close()


def test_only_between_images_networks_come_and_go(build, unpruned):
    with Accelerator(build.folder, build.device()) as accelerator:
        other = accelerator.load(unpruned.folder)
        stream = accelerator.stream(build.pixels)
        next(stream)
        for call in (other.close, other.activate, lambda: accelerator.load(unpruned.folder)):
            with pytest.raises(DeviceBusyError):
                call()
        stream.close()
        check(unpruned, other.infer(unpruned.pixels))


# --- what a folder holds ---


def bundle_with(build, folder, **networks):
    folder.mkdir()
    shutil.copy(build.folder / "design.json", folder)
    for name, network in networks.items():
        shutil.copytree(network.folder / "weights", folder / "networks" / name)
    return folder


def test_the_one_network_of_a_bundle_is_loaded(build, tmp_path):
    bundle = bundle_with(build, tmp_path / "bundle", micro=build)
    with Accelerator(bundle, build.device()) as accelerator:
        check(build, accelerator.infer(build.pixels))


def test_of_several_networks_none_is_guessed(build, unpruned, tmp_path):
    bundle = bundle_with(build, tmp_path / "bundle", a=build, b=unpruned)
    device = build.device()
    with Accelerator(bundle, device) as accelerator:
        with pytest.raises(BundleError) as caught:
            accelerator.infer(build.pixels)
        assert str(caught.value) == (
            f"{bundle}: it holds several networks (a, b); load one with Accelerator.load, or name it with --network"
        )
        with pytest.raises(
            BundleError, match=r"^.*/bundle: several networks \(a, b\) in there; give a folder with netw"
        ):
            accelerator.load(bundle)
        for name, one in (("b", unpruned), ("a", build)):
            check(one, accelerator.load(bundle / "networks" / name).infer(one.pixels))


def test_a_design_alone_takes_networks(build, unpruned, tmp_path):
    bundle = bundle_with(build, tmp_path / "bundle")
    with Accelerator(bundle, build.device()) as accelerator:
        with pytest.raises(BundleError, match=r"^.*/bundle: it holds no network; load one with Accelerator.load, or "):
            accelerator.stream(build.pixels)
        with pytest.raises(
            BundleError, match=r"^.*/bundle: no network.json in there; give a folder with network.json "
        ):
            accelerator.load(bundle)
        check(unpruned, accelerator.load(unpruned.folder).infer(unpruned.pixels))


# --- refused before anything is sent; the others go on ---


def test_a_network_for_another_design_is_refused_with_both_digests(build, tmp_path):
    other = tmp_path / "other"
    write_project(make_project(design_of(micro(), tile_in=8, tile_out=16), resolve_target("zcu102")), other)
    digests = build.bundle.digest[:12], load_bundle(other).digest[:12]
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        before = device.memory.bytes_in_use
        with pytest.raises(BundleError) as caught:
            accelerator.load(other)
        assert str(caught.value) == (
            f"{other}/weights/network.json: packed for design {digests[1]}, and {build.folder} is design {digests[0]}; "
            "pack the network again, for this design"
        )
        assert digests[0] != digests[1]
        assert device.memory.bytes_in_use == before
        check(build, accelerator.infer(build.pixels))


def test_a_build_folder_whose_network_is_of_an_older_design(build, tmp_path):
    """The design was made again, its network was not: refused before the bitstream is loaded."""
    write_project(make_project(design_of(micro(), tile_in=8, tile_out=16), resolve_target("zcu102")), tmp_path / "x")
    shutil.copy(build.folder / "design.json", tmp_path / "x")
    device = build.device()
    with pytest.raises(BundleError, match=r"^.*/x/weights/network.json: packed for design "):
        Accelerator(tmp_path / "x", device)
    assert device.downloads == 0


def test_a_truncated_stripe(build, unpruned, tmp_path):
    folder = tmp_path / "short"
    shutil.copytree(unpruned.folder / "weights", folder)
    (folder / "weights_1.bin").write_bytes((folder / "weights_1.bin").read_bytes()[:-16])
    with Accelerator(build.folder, build.device()) as accelerator:
        with pytest.raises(BundleError) as caught:
            accelerator.load(folder)
        assert str(caught.value) == (
            f"{folder}/weights_1.bin: not the file that network.json was made with (SHA-256 differs); copy the bundle again"
        )
        check(build, accelerator.infer(build.pixels))


def test_a_network_too_large_for_the_design(build, tmp_path):
    """Whatever it says of the design it was packed for."""
    network = random_network(np.random.default_rng(1), replace(MICRO.model, num_classes=9, depth=8), MICRO.pruning)
    large = tmp_path / "large"
    write_project(make_project(design_of(network, tile_in=16, tile_out=16), resolve_target("zcu102")), large)
    rewrite(large / "weights", design=build.bundle.digest)
    with pytest.raises(BundleError) as caught:
        load_network(large, build.bundle)
    depth = MICRO.model.depth
    assert str(caught.value) == (
        f"{large}/weights/network.json: too large for the design in {build.folder}: num_classes=9 (room for 7), "
        f"num_blocks=8 (room for {depth}); pack it for a larger one"
    )


def test_a_stream_longer_than_the_ports(build, tmp_path):
    most = build.bundle.interface.port_words
    folder = tmp_path / "x"
    shutil.copytree(build.folder / "weights", folder)
    shapes = json.loads((folder / "network.json").read_text())["shapes"]
    rewrite(folder, shapes=shapes | {"num_words": most + 1})
    with pytest.raises(
        BundleError, match=rf"too large for the design in .*: num_words={most + 1} \(room for {most}\); "
    ):
        load_network(folder, build.bundle)


# --- refused by the accelerator: its own sentence, and the next call is right ---


def with_field(record, fields, name, value):
    """A change of the stream: another value in one field of a record."""

    first, bits = fields.first_bit(name), next(field.bits for field in fields.fields if field.name == name)

    def change(words):
        lanes = words.reshape(-1)[record * 16 :][:16]
        whole = int.from_bytes(lanes.tobytes(), "little") & ~(((1 << bits) - 1) << first) | value << first
        lanes[:] = np.frombuffer(whole.to_bytes(32, "little"), np.int16)
        return words

    return change


def with_true_checksum(change):
    """The change, and a table that says so: as if it had been packed like this."""

    def changed(words):
        words = change(words)
        lanes = words.reshape(-1)
        records = lanes[: 16 * (1 + HEADER.unpack(lanes[:16])["num_steps"])].reshape(-1, 16)
        return with_field(0, HEADER, "checksum", table_checksum(records))(words)

    return changed


def shortened(words):
    return words[:-1]


REFUSED = [
    (shortened, "the weight stream is not as long as the step table that heads it says"),
    (
        with_field(0, HEADER, "version", 0),
        "the bitstream reads another version of the step table that heads the weights",
    ),
    (with_field(0, HEADER, "checksum", 7), "the step table that heads the weights has not the checksum that it says"),
    (with_field(0, HEADER, "num_heads", 255), "the network is larger than the memories of this design"),
    (with_field(0, HEADER, "grid", 3), "the step table that heads the weights has not the checksum that it says"),
    (
        with_true_checksum(with_field(1, STEP, "source_lane", 40_000)),
        "a step of the network leaves the memories of this design",
    ),
    (
        with_true_checksum(with_field(1, STEP, "out_tiles", 0)),
        "a step of the network leaves the memories of this design",
    ),
    (with_true_checksum(with_field(0, HEADER, "grid", 3)), "the network's image is not as large as its manifest says"),
    (
        with_true_checksum(with_field(0, HEADER, "num_rows", 9)),
        "the weight stream is not as long as the step table that heads it says",
    ),
    (with_field(1, STEP, "op", 1), "the step table that heads the weights has not the checksum that it says"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=[f"{i}: {one[1][:40]}" for i, one in enumerate(REFUSED)])
def test_a_stream_that_the_accelerator_refuses(build, tmp_path, change, sentence):
    folder = repack(build, tmp_path / "corrupt", change)
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        corrupt = accelerator.load(folder)
        for _ in range(2):
            with pytest.raises(RefusedError) as caught:
                corrupt.infer(build.pixels)
            assert str(caught.value) == f"{folder}: {sentence}; pack the network again, for this design"
            assert not corrupt.memory
            check(build, accelerator.infer(build.pixels))
    assert device.downloads == 1  # each time it had ended by itself


def test_an_image_of_another_size(build, smaller, tmp_path):
    """The manifest says so, the step table does not."""
    folder = tmp_path / "x"
    shutil.copytree(smaller.folder / "weights", folder)
    model, shapes = (json.loads((folder / "network.json").read_text())[name] for name in ("model", "shapes"))
    tokens = build.packed.shapes.num_tokens
    rewrite(folder, model=model | {"img_size": 16}, shapes=shapes | {"img_size": 16, "num_tokens": tokens})
    with Accelerator(build.folder, build.device()) as accelerator:
        with pytest.raises(
            RefusedError, match=r"^.*/x: the network's image is not as large as its manifest says; pack "
        ):
            accelerator.load(folder).infer(build.pixels)
        check(build, accelerator.infer(build.pixels))


def test_another_network_than_the_manifests(build, unpruned, tmp_path):
    folder = tmp_path / "x"
    shutil.copytree(unpruned.folder / "weights", folder)
    ran = json.loads((folder / "network.json").read_text())["digest"][:8]
    rewrite(folder, digest="0" * 64)
    with Accelerator(build.folder, build.device()) as accelerator:
        with pytest.raises(
            RefusedError, match=rf"^.*/x: the accelerator ran network {ran}, and this is network 00000000;"
        ):
            accelerator.load(folder).infer(build.pixels)
        check(build, accelerator.infer(build.pixels))


# --- errors of one network are not the others' ---


@pytest.mark.parametrize("fault", [Fault(delay_s=NEVER), Fault(error=77), Fault(error=Error.STEP)], ids=str)
def test_after_an_error_only_what_was_lost_is_loaded_again(build, unpruned, fault):
    device = build.device()
    with Accelerator(build.folder, device, timeout_s=0.5) as accelerator:
        other = accelerator.load(unpruned.folder)
        check(unpruned, other.infer(unpruned.pixels))
        kept = {name: memory.physical_address for name, memory in other.memory.items()}
        device.faults = [fault]
        with pytest.raises(DeviceError):
            accelerator.infer(build.pixels)
        assert not accelerator.network.memory
        assert {name: memory.physical_address for name, memory in other.memory.items()} == kept
        for _ in range(2):
            check(unpruned, other.infer(unpruned.pixels))
            check(build, accelerator.infer(build.pixels))
    assert device.memory.bytes_in_use == 0 and device.kernel.failures == []


@pytest.mark.parametrize("fault", [Fault(error=77), Fault(error=Error.STEP)], ids=str)
def test_what_is_loaded_again_may_lie_elsewhere(build, unpruned, fault):
    """Another network took its place meanwhile; the registers still speak of that."""
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        before = {name: memory.physical_address for name, memory in accelerator.network.memory.items()}
        device.faults = [fault]
        with pytest.raises(DeviceError):
            accelerator.infer(build.pixels)
        other = accelerator.load(unpruned.folder)
        check(build, accelerator.infer(build.pixels))
        assert before != {name: memory.physical_address for name, memory in accelerator.network.memory.items()}
        check(unpruned, other.infer(unpruned.pixels))
    assert device.kernel.failures == []


def test_a_flipped_bit_is_of_the_network_that_ran(build, unpruned):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        other = accelerator.load(unpruned.folder)
        check(unpruned, other.infer(unpruned.pixels))
        device.flip_weight_bit(0, 40, 3)
        check(build, accelerator.infer(build.pixels))
        with pytest.raises(
            WeightsChangedError, match=r"^.*/micro-keep-none/weights: the weights reached the accelerator "
        ):
            other.infer(unpruned.pixels)
        check(build, accelerator.infer(build.pixels))
        check(unpruned, other.infer(unpruned.pixels))


def test_a_stripe_that_was_cut_since_it_was_loaded(build, unpruned, tmp_path):
    folder = tmp_path / "x"
    shutil.copytree(unpruned.folder / "weights", folder)
    stripe = folder / "weights_1.bin"
    whole = stripe.read_bytes()
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        other = accelerator.load(folder)
        device.faults = [Fault(error=77)]
        with pytest.raises(DeviceError):
            other.infer(unpruned.pixels)
        stripe.write_bytes(whole[:-2])
        with pytest.raises(BundleError) as caught:
            other.infer(unpruned.pixels)
        assert str(caught.value) == f"{stripe}: {len(whole) - 2} bytes of {len(whole)}; copy the bundle again"
        assert not other.memory
        check(build, accelerator.infer(build.pixels))
        stripe.write_bytes(whole)
        check(unpruned, other.infer(unpruned.pixels))


def test_ddr_too_small_for_another_network_says_what_is_resident(build, unpruned):
    device = build.device()
    with Accelerator(build.folder, device) as accelerator:
        device.memory.size = before = device.memory.bytes_in_use
        with pytest.raises(DeviceMemoryError) as caught:
            accelerator.load(unpruned.folder)
        megabytes = build.packed.shapes.num_words * 32 / 1e6
        assert str(caught.value).startswith(
            f"no contiguous memory for weights_0, {unpruned_mb(unpruned):.1f} MB, beside the image and its results (0.0 MB) "
            f"and {build.folder}/weights ({megabytes:.1f} MB) (BO allocation failed"
        )
        assert device.memory.bytes_in_use == before and len(accelerator.networks) == 1
        check(build, accelerator.infer(build.pixels))
        accelerator.network.close()
        device.memory.size = 1 << 29
        check(unpruned, accelerator.load(unpruned.folder).infer(unpruned.pixels))


def unpruned_mb(unpruned):
    return (unpruned.folder / "weights" / "weights_0.bin").stat().st_size / 1e6


def test_a_bitstream_that_hangs_is_loaded_again_for_whoever_comes_next(build, unpruned):
    device = build.device()
    with Accelerator(build.folder, device, timeout_s=0.5) as accelerator:
        other = accelerator.load(unpruned.folder)
        check(build, accelerator.infer(build.pixels))
        device.faults = [Fault(delay_s=NEVER)]
        with pytest.raises(
            DeviceTimeoutError, match=r"micro-keep-none/weights: no result after 0\.5 s; 0 of 0 token sel"
        ):
            other.infer(unpruned.pixels)
        assert device.downloads == 2
        check(build, accelerator.infer(build.pixels))
        check(unpruned, other.infer(unpruned.pixels))
