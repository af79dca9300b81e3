"""Stands in for vitis-run, v++, vitis_hls and vivado: notes down its call, says what they say, leaves the files they leave.

Told by the environment: STANDIN_RECORD, a file for the calls; STANDIN_FAIL, the step at which it fails and how
(`csynth`: with an error and status 1; `csynth:quietly`: status 0, but no files); STANDIN_WNS, the slack.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import samples

ERRORS = {
    "csim": "MISMATCH logits[3] of case 0: 17, golden 18\nERROR: [SIM 211-100] 'csim_design' failed: nonzero return value.",
    "csynth": "WARNING: [HLS 207-5292] unused parameter\nERROR: [HLS 207-3777] use of undeclared identifier 'x': top.cpp:7\nERROR: [HLS 200-1715] second",
    "export": "ERROR: [IMPL 213-28] Failed to generate IP.",
    "cosim": "ERROR: [COSIM 212-361] C TB post check failed, nonzero return value '1'.",
    "bitstream": "CRITICAL WARNING: [Timing 38-282] not met\nERROR: [Place 30-640] Place Check : this design requires more LUT cells",
    "silent": "",
}


def put(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def report(top):
    """As micro's engine would come out; STANDIN_DEPTH is ENGINE's."""
    depth = int(os.environ.get("STANDIN_DEPTH", "61"))
    return samples.csynth_rpt(top, fused=64, chained=32, banks=16, depth=depth, x=(2, 128), work=(16, 64))


def run_step(step, top, project):
    wanted, _, how = os.environ.get("STANDIN_FAIL", "").partition(":")
    print(f"INFO: [HLS 200-10] {step}", flush=True)
    if wanted == step:
        if how == "slowly":
            time.sleep(60)
        if how == "killed":
            os.kill(os.getpid(), 9)
        if how == "quietly":
            return
        print(ERRORS["silent" if how == "silently" else step], flush=True)
        sys.exit(1)
    if step == "csynth":
        put(project / "syn" / "report" / f"{top}_csynth.xml", samples.csynth_xml(top, dsp=142))
        put(project / "syn" / "report" / "csynth.rpt", report(top))
    elif step == "export":
        put(project / "impl" / "ip" / "component.xml")
    elif step == "cosim":
        put(project / "sim" / "report" / f"{top}_cosim.rpt", samples.cosim_rpt())
    elif step == "bitstream":
        put(Path("vivado/utilization.rpt"), samples.utilization_rpt())
        put(Path("vivado/timing.rpt"), samples.timing_rpt(os.environ.get("STANDIN_WNS", "0.041")))
        for suffix in ("bit", "hwh", "xsa"):
            put(Path(f"bitstream/spvit.{suffix}"))


def main():
    tool, arguments = os.environ["STANDIN_TOOL"], sys.argv[1:]
    settings = {key: value for key, value in os.environ.items() if key.startswith("SPVIT_")}
    with Path(os.environ["STANDIN_RECORD"]).open("a") as record:
        record.write(json.dumps([tool, arguments, settings]) + "\n")
    if tool == "vivado":
        run_step("bitstream", None, None)
    elif "--config" in arguments:
        config = Path(arguments[arguments.index("--config") + 1]).read_text()
        top = next(line.split("=")[1] for line in config.splitlines() if line.startswith("syn.top="))
        steps = {"--csim": "csim", "--package": "export", "--cosim": "cosim", "-c": "csynth"}
        step = next(steps[word] for word in arguments if word in steps)
        run_step(step, top, Path(arguments[arguments.index("--work_dir") + 1]) / "hls")
    else:
        assert arguments[-1] == "hls.tcl" and Path("hls.tcl").exists()
        top = settings["SPVIT_TOP"]
        for step in settings["SPVIT_STEPS"].split():
            print(f"spvit: {step} of {top}")
            run_step(step, top, Path("../hls") / top / "solution1")


main()
