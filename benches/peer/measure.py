"""One process, measured from outside: when each of its lines came, its wall and processor time, its peak memory, and how
many cores other processes used meanwhile. One clock and one counter for both programs; pair.py says what is run.
"""

import json
import os
import platform
import shlex
import subprocess
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
# Above this many cores in use by others, a time says more about them than about us.
DISTURBED = 0.3


def run(command: list[str], threads: int) -> dict:
    """Runs it to its end, and notes when each line came."""
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "NO_COLOR": "1"}
    busy_before, begun, events = busy_seconds(), time.perf_counter(), []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
        for line in process.stdout:
            if line.startswith("{"):
                events.append((time.perf_counter() - begun, json.loads(line)))
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
        errors.seek(0)
        stderr = errors.read()
    cpu = used.ru_utime + used.ru_stime
    busy = busy_seconds()
    others = None if busy is None or busy_before is None else max(0.0, (busy - busy_before - cpu) / wall)
    return {
        "events": events,
        "exit_code": process.returncode,
        "stderr": stderr,
        "wall_seconds": round(wall, 4),
        "cpu_seconds": round(cpu, 3),
        "others_cores": None if others is None else round(others, 2),
        "peak_rss_mib": round(used.ru_maxrss / 1024, 1),  # KiB on Linux
    }


def least_disturbed(measured, again: int) -> list[dict]:
    """All tries; one is of the kind `run` (or `failed`), the others are `disturbed`."""
    tries = [measured()]
    while tries[-1]["kind"] == "run" and is_disturbed(tries[-1]) and len(tries) <= again:
        tries.append(measured())
    counts = min(tries, key=lambda line: (line["kind"] == "run", line["others_cores"] or 0.0))
    return [line if line is counts else line | {"kind": "disturbed"} for line in tries]


def is_disturbed(line: dict) -> bool:
    return (line["others_cores"] or 0.0) > DISTURBED


def trained(events: list[tuple[float, dict]], side: str) -> dict:
    """What both programs' lines say of a training, by the clock of this process."""
    last = events[-1][1]
    steps = [at for at, event in events if event["event"] == "step"]
    at = {event["event"]: at for at, event in events if event["event"] in ("ready", "data", "tokens")}
    # The Trainer says when it is ready; ours counts from its own start, some milliseconds after the process's.
    ready = at["ready"] if side == "peer" else last["setup_seconds"]
    tokenise = last["tokenise_seconds"] if side == "peer" else at["tokens"] - at["data"]
    gaps = [later - earlier for earlier, later in zip(steps[1:], steps[2:])]
    return {
        "setup_seconds": round(ready, 4),
        "tokenise_seconds": round(tokenise, 4),
        "first_step_seconds": round(steps[0], 4),
        "steps": len(steps),
        "steps_seconds": round(steps[-1] - ready, 4),
        "step_seconds": round(median(gaps), 5) if gaps else None,
        "train_seconds": round(last["train_seconds"], 4),
        "accuracy": last.get("accuracy"),
    }


def scored(events: list[tuple[float, dict]]) -> dict:
    last = events[-1][1]
    accuracy = last["metrics"]["accuracy"] if "metrics" in last else last["accuracy"]
    rows = last["metrics"]["rows"] if "metrics" in last else last["rows"]
    return {"eval_seconds": round(last["eval_seconds"], 4), "rows": rows, "accuracy": accuracy}


def busy_seconds() -> float | None:
    """Core seconds that this machine has worked, stolen ones included; only Linux says it."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = [int(field) for field in line.split()[1:9]]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def machine(ours: Path, threads: int, command: str, peer: dict | None) -> dict:
    """The first line of a run: where and with what it was made."""
    load = round(os.getloadavg()[0], 2)
    if load > DISTURBED:
        print(f"warning: the machine's load is {load} before anything has started; these times will be no good")
    revision = output_of(["git", "rev-parse", "--short=12", "HEAD"])
    return {
        "kind": "machine",
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_average": load,
        "threads": threads,
        "lowchurn": output_of([str(ours), "--version"]) + f", revision {revision}",
        "rustc": output_of(["rustc", "--version"]),
        "peer": peer,
        "command": command,
    }


def shown(command: list[str]) -> str:
    """As somebody else would type it: no folder of this machine."""
    line = shlex.join("python" if "/bin/python" in part else part for part in command)
    for folder, name in [(str(ROOT.parent), ".."), (str(Path.home()), "~")]:
        line = line.replace(f"{ROOT}/", "").replace(folder, name)
    return line


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    fields = {line.split(":")[0].strip(): line.split(":", 1)[1].strip() for line in reversed(lines) if ":" in line}
    flags = fields.get("flags", "").split()
    wanted = [flag for flag in ["avx2", "avx512f", "avx512_bf16", "amx_bf16"] if flag in flags]
    return f"{fields.get('model name', 'unknown')} ({' '.join(wanted)})"


def output_of(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def versions(python: Path, names: list[str]) -> dict[str, str]:
    """Of what that Python has installed; nothing where one is missing."""
    ask = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    asked = subprocess.run([str(python), "-c", ask, *names], capture_output=True, text=True)
    return json.loads(asked.stdout) if asked.returncode == 0 else {}
