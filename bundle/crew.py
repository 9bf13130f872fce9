"""One function on all cores: each worker is a process of its own, which gets one task after another through a pipe.

A worker ends when its standard input does, whatever it is doing: none outlives the tool, however that was ended. What
goes through the pipes is pickled by us for us; nothing of it is on a command line.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, TypeVar

from bundle.errors import BundleError, CommandError
from bundle.run import popen

LARGEST = (
    2  # workers: one has some 35 MB with its zstd, and 150 MB is what the tool may take in all
)
START = "import sys; sys.path[0] = sys.argv[1]; from bundle import crew; crew.main()"

Task = TypeVar("Task")
Result = TypeVar("Result")


class Worker:
    """A process that applies `function`, which is of a module's top level, or a `partial` of such a one."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        reader, writer = os.pipe()
        self.tasks = os.fdopen(writer, "wb")
        with os.fdopen(reader, "rb") as stdin:
            self.child = popen(
                [sys.executable, "-c", START, str(Path(__file__).parents[1])], stdin=stdin
            )
        assert self.child.stdout is not None
        self.results = self.child.stdout
        self._send(function)

    def _send(self, what: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended: no answer will say so
            pickle.dump(what, self.tasks)
            self.tasks.flush()

    def __call__(self, task: Any) -> Any:
        """What the function gives for `task`.

        Raises what the function raised, CommandError when the process has ended.
        """
        self._send(task)
        try:
            found = pickle.load(self.results)
        except (EOFError, pickle.UnpicklingError) as error:
            raise CommandError("a worker process has ended before its work was done") from error
        if isinstance(found, Exception):
            raise found
        return found

    def end(self) -> None:
        """End it now."""
        self.child.kill()
        self.child.wait(timeout=60)
        self.results.close()
        with contextlib.suppress(BrokenPipeError):
            self.tasks.close()


def spread(
    function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[tuple[Task, Result]]:
    """Each task and what `function` gives for it, as they come; the first of `tasks` are begun first.

    Raises what the function raised, CommandError when a worker has ended.
    """
    count = min(os.cpu_count() or 1, LARGEST, len(tasks))
    free: SimpleQueue[Worker] = SimpleQueue()

    def act(task: Task) -> tuple[Task, Result]:
        worker = free.get()
        try:
            return task, worker(task)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(max(count, 1)) as pool, contextlib.ExitStack() as stack:
        for _ in range(count):
            worker = Worker(function)
            stack.callback(worker.end)
            free.put(worker)
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        for future in as_completed([pool.submit(act, task) for task in tasks]):
            yield future.result()


def _work(stdin: IO[bytes], stdout: IO[bytes]) -> None:
    tasks: SimpleQueue[Any] = SimpleQueue()

    def receive() -> None:
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                tasks.put(pickle.load(stdin))
        os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    function = tasks.get()
    while True:
        try:
            found = function(tasks.get())
        except (BundleError, OSError) as error:
            found = error
        pickle.dump(found, stdout)
        stdout.flush()


def main() -> None:
    """Be a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the tool ends us
    _work(sys.stdin.buffer, sys.stdout.buffer)
