"""Every wait of the tests has a limit."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from support.places import TESTS

RUN, POLL = "support.command.finish", "support.command.until"
#: Functions that wait for ever, and what does the same with a limit.
UNLIMITED = {
    "subprocess.run": RUN,
    "subprocess.call": RUN,
    "subprocess.check_call": RUN,
    "subprocess.check_output": RUN,
    "subprocess.getoutput": RUN,
    "subprocess.getstatusoutput": RUN,
    "os.system": RUN,
    "os.popen": RUN,
    "os.wait": RUN,
    "os.waitpid": RUN,
    "subprocess.Popen": "support.command.started",
    "os.read": "support.terminal.at_terminal",
    "pty.fork": "support.terminal.at_terminal",
    "pty.spawn": "support.terminal.at_terminal",
    "signal.pause": POLL,
    "signal.sigwait": POLL,
}
#: Methods that wait for ever without an argument for their limit, and how many they take before it.
METHODS = {"wait": 0, "join": 0, "communicate": 1, "get": 0, "result": 0, "acquire": 1, "wait_for": 1}
#: Methods and functions that wait for ever, whatever they are given: `in_time` or `select` goes around them.
BLOCKING = {"accept", "recv", "recv_bytes", "recvfrom", "readline", "input"}
#: Where the limits themselves are.
HOME = {"support/command.py", "support/terminal.py"}
ALLOWED = {
    ("support/ray_nodes.py", "subprocess.Popen"),  # it outlives the function that starts it: `stop` ends it
    # In a process that has a limit itself.
    ("support/live.py", "os.waitpid"),
    ("support/live.py", "stream.readline"),
}


def unlimited_waits(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield the line of each wait without a limit, what waits, and a sentence about it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, last = ast.unparse(node.func), ast.unparse(node.func).rpartition(".")[2]
            timed = any(keyword.arg in ("timeout", "seconds", None) for keyword in node.keywords)
            if name in UNLIMITED:
                yield node.lineno, name, f"{name} has no limit; {UNLIMITED[name]} has"
            elif last in BLOCKING and not timed:
                yield node.lineno, name, f"{name}() has no limit; in_time({name}) has"
            elif isinstance(node.func, ast.Attribute) and last in METHODS and not timed:
                # `", ".join(words)` and `options.get(key)` have an argument, and wait for nothing.
                if len(node.args) <= METHODS[last] and not (last == "get" and node.args):
                    yield node.lineno, name, f"{name}() needs a timeout"
            elif last == "read" and reads_a_pipe(node.func):
                yield node.lineno, name, f"{name}() has no limit; in_time({name}) has"
        elif isinstance(node, ast.For | ast.comprehension) and is_pipe(node.iter):
            pipe = ast.unparse(node.iter)
            yield node.iter.lineno, pipe, f"lines of {pipe} have no limit; read_to has"
        elif isinstance(node, ast.While) and sleeps(node) and not compares_time(node):
            yield node.lineno, "while", "a loop that sleeps has no limit; support.command.until has"


def is_pipe(node: ast.AST) -> bool:
    """Tell whether an expression is the stdout or stderr of a process."""
    return isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr") and ast.unparse(node.value) != "sys"


def reads_a_pipe(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and is_pipe(function.value)


def sleeps(loop: ast.While) -> bool:
    return any(ast.unparse(node.func).rpartition(".")[2] == "sleep" for node in ast.walk(loop)
               if isinstance(node, ast.Call))  # fmt: skip


def compares_time(loop: ast.While) -> bool:
    return any(isinstance(node, ast.Compare) and "monotonic()" in ast.unparse(node) for node in ast.walk(loop))


def test_every_wait_has_a_limit() -> None:
    """One that has none turns a fault into a suite that never ends."""
    found = []
    for file in sorted(TESTS.rglob("*.py")):
        place = file.relative_to(TESTS).as_posix()
        if place not in HOME:
            waits = unlimited_waits(ast.parse(file.read_text(encoding="utf-8")))
            found += [f"tests/{place}:{line}: {said}" for line, name, said in waits if (place, name) not in ALLOWED]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(['x'])",
        "subprocess.run(['x'], timeout=5)",  # by one helper, so that no test forgets it
        "with subprocess.Popen(['x']) as run: pass",  # its end waits
        "run.wait()",
        "run.communicate()",
        "run.communicate(b'typed')",
        "thread.join()",
        "queue.get()",
        "future.result()",
        "lock.acquire()",
        "event.wait()",
        "server.accept()",
        "pipe.recv()",
        "os.read(ours, 4096)",
        "run.stdout.readline()",
        "run.stderr.read()",
        "for line in run.stdout: print(line)",
        "[line for line in run.stdout]",
        "while not file.exists(): time.sleep(1)",
    ],
)
def test_a_wait_without_a_limit_is_seen(line: str) -> None:
    assert [number for number, _, _ in unlimited_waits(ast.parse(line))] == [1]


@pytest.mark.parametrize(
    "line",
    [
        "finish(['x'])",
        "run.wait(5)",
        "run.wait(timeout=5)",
        "run.communicate(timeout=LIMIT)",
        "thread.join(5)",
        "', '.join(words)",
        "options.get('x')",
        "queue.get(timeout=5)",
        "in_time(run.stdout.readline)",
        "result.stdout",
        "sys.stdout.read()",
        "file.read()",
        "while time.monotonic() < end: time.sleep(1)",
    ],
)
def test_what_waits_for_nothing_is_left_alone(line: str) -> None:
    assert not list(unlimited_waits(ast.parse(line)))
