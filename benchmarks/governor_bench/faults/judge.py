"""The five promises, judged."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from governor_bench.equality.check import compare
from governor_bench.faults.workload import Answers

PROMISES = ("lost_requests", "token_mismatches", "leaked_pages", "engine_stalls", "unhandled")

UNHANDLED = re.compile(
    rb"Traceback \(most recent call last\)|Exception in thread|Exception ignored|Logging error"
    rb"|Fatal Python error|Segmentation fault|terminate called|Assertion failed|FATAL ERROR"
)


@dataclass(slots=True)
class Verdict:
    """How often each promise was broken."""

    requests: int = 0
    """Of engines that lived, aborted ones included."""
    lost_requests: int = 0
    """That failed, or ended before they had said all."""
    token_mismatches: int = 0
    leaked_pages: int = 0
    """KV pages that were neither free nor evictable once the engine was idle."""
    engine_stalls: int = 0
    """Steps that Governor held for longer than it may, by its own doing."""
    unhandled: int = 0
    """Tracebacks in logs, and processes that ended by themselves."""
    examples: list[str] = field(default_factory=list)

    def judge_answers(self, expected: Answers, got: Answers) -> None:
        """Compare every token; see :func:`governor_bench.equality.check.compare`."""
        self.requests += len(expected)
        found = compare(expected, got)
        lost: set[int] = set()
        wrong: set[int] = set()
        for item in found:
            have = got[item.index].branches
            short = item.branch < len(have) and item.position == len(have[item.branch].output_ids)
            (lost if item.position < 0 or short else wrong).add(item.index)
        self.lost_requests += len(lost)
        self.token_mismatches += len(wrong)
        self.examples += [str(item) for item in found[:3]]

    def judge_logs(self, logs: Iterable[Path]) -> None:
        """Look for tracebacks."""
        for log in logs:
            text = log.read_bytes()
            found = list(UNHANDLED.finditer(text))
            self.unhandled += len(found)
            for match in found[:2]:
                start, end = max(0, match.start() - 200), match.end() + 1500
                self.examples.append(f"{log.name}: {text[start:end].decode(errors='replace')}")

    def broken(self) -> dict[str, int]:
        """The promises, by name; all are kept where all are 0."""
        return {name: getattr(self, name) for name in PROMISES}
