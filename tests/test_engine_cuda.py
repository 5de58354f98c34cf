"""CUDA calls, on a fake: everything is given back, errors are one line, recordings end whatever happens."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BackendError
from engine.inference.backends.cuda import Cuda, is_frozen
from engine.inference.machine import find_gpu
from tests.helpers.fakes_tensorrt import DRIVER, GPU, FakeCuda, fake_nvml


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    cuda = FakeCuda(1 << 20)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", fake_nvml())
    return cuda


def test_there_and_back(fake: FakeCuda) -> None:
    cuda = Cuda("tensorrt")
    host, back, address = cuda.host_buffer(400), cuda.host_buffer(400), cuda.device_buffer(400)
    host.view(np.float32)[:] = np.arange(100)
    cuda.upload(address, host)
    cuda.download(back, address)
    assert not np.array_equal(host, back)  # only queued
    cuda.synchronize()
    np.testing.assert_array_equal(host, back)
    cuda.clear(address, 200)
    cuda.download(back[:240], address)
    cuda.synchronize()
    np.testing.assert_array_equal(back.view(np.float32), [0] * 50 + [*range(50, 100)])
    assert cuda.stream in fake.streams and fake.owned == (1, 2, 1, 0, 0)
    cuda.close()
    cuda.close()
    assert fake.owned == (0, 0, 0, 0, 0)


def test_recorded_and_repeated(fake: FakeCuda) -> None:
    cuda = Cuda("tensorrt")
    host, address = cuda.host_buffer(8), cuda.device_buffer(8)
    host[:] = 7
    graph = cuda.record(lambda: cuda.upload(address, host))
    cuda.synchronize()
    assert graph is not None and fake.owned == (1, 1, 1, 0, 1)
    assert fake.device[address][0] == 0xAB  # nothing was run
    for value in (1, 2):
        host[:] = value
        cuda.launch(graph)
        cuda.synchronize()
        assert fake.device[address].tolist() == [value] * 8
    graph.close()
    graph.close()
    assert not fake.executables


def refuse() -> None:
    raise BackendError("it does not want to")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_refused_recordings_end(fake: FakeCuda) -> None:
    cuda = Cuda("tensorrt")
    waits: list[Callable[[], None]] = [refuse, cuda.synchronize, lambda: cuda.device_buffer(1) and None]
    for launches in waits:
        assert cuda.record(launches) is None
        cuda.synchronize()
    with pytest.raises(KeyboardInterrupt):
        cuda.record(interrupt)
    cuda.synchronize()
    assert not fake.executables


def test_out_of_memory(fake: FakeCuda) -> None:
    cuda = Cuda("tensorrt")
    cuda.device_buffer(1 << 19)
    with pytest.raises(BackendError, match=r"out of memory: 3\.00 GiB needed, 0\.00 of 0\.00 GiB are free"):
        cuda.device_buffer(3 << 30)
    cuda.close()
    assert fake.owned == (0, 0, 0, 0, 0)


def test_forgotten(fake: FakeCuda) -> None:
    cuda = Cuda("tensorrt")
    cuda.device_buffer(10)
    del cuda
    assert fake.owned == (0, 0, 0, 0, 0)


def test_failures_are_named(fake: FakeCuda) -> None:
    cuda = Cuda("tensorrt")
    fake.fail_next_wait = True
    with pytest.raises(BackendError, match="CUDA could not run a network: launchfailure, cudaErrorLaunchFailure"):
        cuda.synchronize()


def test_the_gpu(fake: FakeCuda) -> None:
    gpu = find_gpu("tensorrt")
    assert (gpu.gpu, gpu.compute_capability, gpu.driver, gpu.cuda) == (GPU, "9.0", DRIVER, "13.1")


def test_a_driver_without_its_library(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", None)
    assert find_gpu("tensorrt").driver == "of CUDA 13.1"


@pytest.mark.parametrize("use", [Cuda, find_gpu])
def test_no_gpu_and_no_package(monkeypatch: pytest.MonkeyPatch, use: Callable[[str], object]) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda(n_gpus=0))
    with pytest.raises(BackendError, match=r"tensorrt needs an NVIDIA GPU .*\(nodevice, cudaErrorNoDevice\)"):
        use("tensorrt")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(BackendError, match=r"cuda-bindings are not installed: pip install 'tango-rt\[tensorrt-rtx\]'"):
        use("tensorrt-rtx")


@given(st.lists(st.sampled_from(["view", "lock", "free"]), max_size=6))
def test_frozen_is_what_cannot_be_written_to(steps: list[str]) -> None:
    array = np.arange(12)
    chain = [array]
    for step in steps:
        if step == "view":
            chain.append(chain[-1][:])
        else:
            chain[-1].flags.writeable = step == "free" and all(shown.flags.writeable for shown in chain)
    assert is_frozen(chain[-1]) == all(
        not shown.flags.writeable for shown in (chain[-1], *((chain[0],) if len(chain) > 1 else ()))
    )


def test_memory_of_others_is_never_frozen() -> None:
    assert not is_frozen(np.frombuffer(bytearray(8), np.uint8))
    assert not is_frozen(np.frombuffer(bytes(8), np.uint8))
