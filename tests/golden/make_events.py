"""Make events.tfevents, the TensorBoard event file that the Rust writer is held to, byte by byte.

The records are built with TensorBoard's own protocol buffers and its own record writer; only the times are made up.

Needs tensorboard (made with tensorboard 2.21.0, protobuf 7.36.2, Python 3.11). Run: python tests/golden/make_events.py
"""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

START = 1700000000.25
SCALARS = [
    (START + 1, 0, "train/loss", 0.6931471824645996),
    (START + 2, 1, "train/learning_rate", 5e-05),
    (START + 3, 127, "train/grad_norm", 1.5),
    (START + 4, 128, "train/accuracy", 0.0),
    (START + 5, 2105, "eval/loss", float("inf")),
    (START + 6, 1 << 40, "eval/accuracy", -0.25),
]


def main() -> None:
    with open(Path(__file__).parent / "events.tfevents", "wb") as file:
        writer = RecordWriter(file)

        def write(event: Event) -> None:
            writer.write(event.SerializeToString(deterministic=True))

        write(Event(wall_time=START, file_version="brain.Event:2"))
        for wall_time, step, tag, value in SCALARS:
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
            write(Event(wall_time=wall_time, step=step, summary=summary))
        restart = SessionLog(status=SessionLog.START)
        write(Event(wall_time=START + 7, step=2000, session_log=restart))


if __name__ == "__main__":
    main()
