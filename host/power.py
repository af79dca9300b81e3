"""Power while something runs, from the board's PMBus rails where PYNQ finds them."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
import pynq

INTERVAL_S = 0.02


class PowerMeter:
    """Samples every rail that has a power sensor, in a thread, from entering `with` to leaving it."""

    def __init__(self, is_emulated: bool) -> None:
        self._sensors = {} if is_emulated else power_sensors()
        self._samples: dict[str, list[float]] = {name: [] for name in self._sensors}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="spvit power", daemon=True)

    def __enter__(self) -> PowerMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def mean_w(self) -> dict[str, float] | None:
        """Rail -> watts; None where there are no rails to read."""
        means = {name: float(np.mean(samples)) for name, samples in self._samples.items() if samples}
        return means or None

    def _sample(self) -> None:
        while self._sensors:
            for name, sensor in self._sensors.items():
                self._samples[name].append(float(sensor.value))
            if self._ended.wait(INTERVAL_S):
                return


def power_sensors() -> dict[str, Any]:
    """By rail; empty where libsensors is missing or finds none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PYNQ warns where libsensors is missing
        rails = pynq.get_rails()
    sensors = {name: getattr(rail, "power", None) for name, rail in rails.items()}
    return {name: sensor for name, sensor in sensors.items() if sensor is not None}
