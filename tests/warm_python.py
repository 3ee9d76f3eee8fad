"""A command `python` that forks a process which has imported the slow modules, for tests that start many programs.

It runs `python FILE ...` and `python -m MODULE ...` with the caller's arguments, folder, environment and streams.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Uses one CPU, because by default there is one data worker per CPU.
_SERVER = """
import contextlib, importlib, json, os, runpy, socket, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for name in ("torch._dynamo", "shardgen.cli", "trainer.cli", "trainer.commands.train", "lightning"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)

def run(streams, folder, environment, args):
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if args[0] == "-m":
        sys.argv, sys.path[0] = args[1:], folder
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = args, os.path.dirname(args[0])
        runpy.run_path(args[0], run_name="__main__")

with socket.socket(socket.AF_UNIX) as server:
    server.bind(sys.argv[1])
    server.listen()
    print("ready", flush=True)
    while True:
        caller, _ = server.accept()
        with caller:
            request, streams, _, _ = socket.recv_fds(caller, 1_000_000, 3)
            if (child := os.fork()) == 0:
                server.close()
                run(streams, *json.loads(request))
                sys.exit()
            for stream in streams:
                os.close(stream)
            caller.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

_CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([os.getcwd(), dict(os.environ), sys.argv[1:]]).encode()
    socket.send_fds(server, [request], [0, 1, 2])
    sys.exit(int(server.recv(100)))
"""


@contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Start the process, and yield a folder for PATH that contains the command."""
    address = str(folder / "socket")
    command = [sys.executable, "-c", _SERVER, address]
    client = folder / "bin" / "python"
    client.parent.mkdir()
    client.write_text(_CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o755)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield client.parent
        process.kill()
