"""Raw RapidOCR: one process or several that do nothing but call it on JPEG bytes.

As a program it is one of these processes: it reads the pages it was given once, so that all models are
loaded (RapidOCR loads them at first use) and warm, then reads the page whose number comes on stdin and
writes its texts to stdout, one JSON line each.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from loadtest.child import START_S, Child

PAGE_S = 60.0
READY = "ready"


class RawOcr:
    """`processes` processes of `threads` threads each; a free one takes the next page.

    :param arena: onnxruntime's memory arena, which RapidOCR turns off unless told otherwise.
    """

    def __init__(self, processes: int, threads: int, pages: Sequence[Path], *, arena: bool = False) -> None:
        self.name = f"raw RapidOCR {processes} × {threads}{' with arena' if arena else ''}"
        self.arena = arena
        arguments = ["--threads", str(threads), *(["--arena"] if arena else []), *map(str, pages)]
        self._children = [Child("loadtest.ocr_raw", *arguments, hears="stdout") for _ in range(processes)]
        self._free: SimpleQueue[Child] = SimpleQueue()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Ended last: a caller waits for its process.
            self._callers = stack.enter_context(ThreadPoolExecutor(len(self._children)))
            for child in self._children:
                stack.enter_context(child)
            for child in self._children:
                while child.line(START_S) != READY:
                    pass
                self._free.put(child)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, pages: Sequence[int]) -> list[list[str]]:
        """The texts of pages by number."""
        return list(self._callers.map(self._read_one, pages))

    def cpu_s(self) -> float:
        return sum(child.cpu_s() for child in self._children)

    def _read_one(self, page: int) -> list[str]:
        child = self._free.get()
        try:
            child.say(str(page))
            texts: list[str] = json.loads(child.line(PAGE_S))
            return texts
        finally:
            self._free.put(child)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--arena", action="store_true")
    parser.add_argument("pages", type=Path, nargs="+")
    options = parser.parse_args()

    import cv2  # here: the parent needs neither
    from rapidocr import RapidOCR

    cv2.setNumThreads(options.threads)
    read: Any = RapidOCR(
        params={
            "EngineConfig.onnxruntime.intra_op_num_threads": options.threads,
            "EngineConfig.onnxruntime.enable_cpu_mem_arena": options.arena,
            "Global.log_level": "error",
        }
    )
    pages = [path.read_bytes() for path in options.pages]
    for page in pages:
        read(page)
    print(READY, flush=True)
    for line in sys.stdin:
        print(json.dumps(read(pages[int(line)]).txts or []), flush=True)


if __name__ == "__main__":
    main()
