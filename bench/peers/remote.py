# SPDX-License-Identifier: Apache-2.0
"""A peer in another process, as the script that times it sees it."""

import json
import os
import pathlib
import subprocess

WORKER = pathlib.Path(__file__).with_name("worker.py")


class PeerError(Exception):
    pass


class Remote:
    """Starts its process when asked something, and again if it has died."""

    def __init__(self, subject, name, python, threads, path, cache, log, variables=None):
        # compiled code has the number of threads in it, and so has the folder that keeps it; no idle compiler processes
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path,
                             "TORCHINDUCTOR_CACHE_DIR": f"{cache}-{threads}", "TORCHINDUCTOR_COMPILE_THREADS": "1",
                             **(variables or {})}
        self._command, self._log, self._process = [python, WORKER, subject, name, str(threads)], log, None

    def ask(self, do, **request):
        if self._process is None:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                             stderr=self._log, env=self._environment)
        try:
            print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status, self._process = self._process.wait(), None
            raise PeerError(f"its process ended with status {status}, see {self._log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self):
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None
