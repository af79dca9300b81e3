"""What the accelerator answers in the status buffer, as a sentence where it is no result."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from host.bundle import Bundle, PackedNetwork
from hw.interface import STATUS_CHECKSUM, STATUS_ERROR, STATUS_NETWORK, UNWRITTEN, Error
from spvit.errors import DeviceError, RefusedError, WeightsChangedError

REFUSALS = {
    Error.NUM_WORDS: "the weight stream is not as long as the step table that heads it says",
    Error.TABLE_VERSION: "the bitstream reads another version of the step table that heads the weights",
    Error.TABLE_CHECKSUM: "the step table that heads the weights has not the checksum that it says",
    Error.STEP: "a step of the network leaves the memories of this design",
    Error.SIZES: "the network is larger than the memories of this design",
    Error.IMAGE_WORDS: "the network's image is not as large as its manifest says",
}
"""Why the accelerator does not run a network that it was sent."""
REPORTED = (RefusedError, WeightsChangedError)
"""Errors that the accelerator itself answered: it has ended."""


def check_answer(bundle: Bundle, network: PackedNetwork, status: NDArray[np.int32]) -> None:
    """Raise unless the network ran, and no other: RefusedError, WeightsChangedError, DeviceError.

    status  the whole buffer, after a run that finished
    """
    folder, error = network.folder, int(status[STATUS_ERROR])
    if error == Error.DIGEST:
        raise RefusedError(
            f"{bundle.folder}: the bitstream was built from another design than digest={bundle.digest[:8]}; deploy the "
            "bundle with its own bitstream"
        )
    if error != Error.NONE and error not in REFUSALS:
        written = "nothing" if error == UNWRITTEN else f"error {error}, which this runtime does not know"
        raise DeviceError(
            f"{bundle.folder}: the accelerator finished and answered {written}; deploy the bundle with its own "
            "bitstream"
        )
    arrived = int(status[STATUS_CHECKSUM])
    was_read = error == Error.NONE or arrived != UNWRITTEN  # or it refused the registers alone
    if was_read and arrived & 0xFFFF_FFFF != network.weights_checksum:
        raise WeightsChangedError(
            f"{folder}: the weights reached the accelerator changed, checksum 0x{arrived & 0xFFFF_FFFF:08x} in place "
            f"of 0x{network.weights_checksum:08x}; the next call loads them again, and if this returns, memory or its "
            "clock is at fault"
        )
    if error != Error.NONE:
        raise RefusedError(f"{folder}: {REFUSALS[Error(error)]}; pack the network again, for this design")
    ran = f"{int(status[STATUS_NETWORK]) & 0xFFFF_FFFF:08x}"
    if ran != network.digest[:8]:
        raise RefusedError(
            f"{folder}: the accelerator ran network {ran}, and this is network {network.digest[:8]}; pack the network "
            "again, for this design"
        )
