"""Replays a Mooncake trace with ai-dynamo-runtime, in whatever interpreter has it: `python dynamo_replay.py TRACE
WORKERS ENGINE`, where ENGINE is the json of its engine's settings. Prints the CPU seconds of the replay as json."""

from __future__ import annotations

import json
import sys
import time

if __name__ == "__main__":
    from dynamo._core import run_mocker_trace_replay

    path, workers, engine = sys.argv[1:]
    begun = time.process_time()
    told = run_mocker_trace_replay([path], extra_engine_args={"engine": json.loads(engine)}, num_workers=int(workers))
    seconds = time.process_time() - begun
    summary = told.summary
    print(
        json.dumps({"cpu_s": seconds, "requests": summary["num_requests"], "completed": summary["completed_requests"]})
    )
