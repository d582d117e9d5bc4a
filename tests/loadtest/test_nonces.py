"""Calls with a nonce each, cancelled and late and reconnected, against a served graph; see `loadtest.nonces`."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.serving import ROOT


def nonces(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.nonces", "--seconds", "40", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def test_no_answer_goes_to_another_request_by_any_wire() -> None:
    done = nonces("--requests", "2500")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"^(\w+): 2500 calls in .* (\d+) answered.*left (\d+) times$", done.stdout, re.MULTILINE)
    assert {wire for wire, _, _ in found} == {"tcp", "grpc", "http"}
    assert all(int(answered) > 1500 and int(left) for _, answered, left in found)
    assert "cancelled" in done.stdout and "deadline" in done.stdout


def test_a_server_that_mixes_up_answers_is_found_out() -> None:
    done = nonces("--requests", "2500", "--wire", "tcp", "--app", "tests.loadtest.nonces_swapped:graph")
    assert done.returncode == 1
    assert re.search(r"tcp: FAILED: nonce \d+ got the answer of another", done.stdout), done.stdout + done.stderr
