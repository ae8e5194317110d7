# SPDX-License-Identifier: GPL-3.0-or-later
"""The door: ``whoneeds trace once|run|start|load|stop|status``.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings.
"""

import argparse
import json
import sys
from typing import Any, Dict, Optional, Sequence

from whoneeds.model.errors import SettingsError, WhoneedsError
from whoneeds.model.evidence import Gap

_RUN_EXAMPLES = """\
examples:
  whoneeds trace {verb} --for 60 --dir /var/lib/whoneeds
  whoneeds trace {verb} --config /etc/whoneeds/tracer.json
  whoneeds trace {verb} --period 1 --dir /var/lib/whoneeds
"""
_ONCE_EXAMPLES = """\
examples:
  whoneeds trace once
  whoneeds trace once --format json
"""
_STATUS_EXAMPLES = """\
examples:
  whoneeds trace status
  whoneeds trace status --dir /var/lib/whoneeds --format json
"""
_LOAD_EXAMPLES = """\
examples:
  whoneeds trace load --check
  ExecStartPre=+... whoneeds trace load --config /etc/whoneeds/tracer.json    (in a unit; see docs/operations.md)
"""
_STOP_EXAMPLES = """\
examples:
  whoneeds trace stop
  whoneeds trace stop --dir /var/lib/whoneeds
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="whoneeds", description="Find out who needs whom in a fleet.")
    rooms = parser.add_subparsers(dest="room", required=True, metavar="trace")
    trace = rooms.add_parser("trace", help="observe this host's connections and their processes")
    verbs = trace.add_subparsers(dest="verb", required=True)
    once = _verb(verbs, "once", "list this host's connections and their processes now", _ONCE_EXAMPLES)
    once.add_argument("--sources", choices=("table", "psutil"), help="where sockets come from (default: table)")
    _add_format(once)
    run = _verb(verbs, "run", "observe in the foreground until stopped", _RUN_EXAMPLES.format(verb="run"))
    start = _verb(
        verbs,
        "start",
        "observe in the background, watched over by a process that starts it again if it dies",
        _RUN_EXAMPLES.format(verb="start"),
    )
    for parser_of_verb in (run, start):
        _add_run_options(parser_of_verb)
    load = _verb(verbs, "load", "prepare what needs root for a service that runs without any right", _LOAD_EXAMPLES)
    load.add_argument("--check", action="store_true", help="load the programs, try them without any right, let them go")
    load.add_argument("--config", metavar="FILE", help="configuration file (JSON): which packets are taken in")
    stop = _verb(verbs, "stop", "end what 'start' or 'run' began, after it has written what it saw", _STOP_EXAMPLES)
    status = _verb(verbs, "status", "say how the tracer of a directory is", _STATUS_EXAMPLES)
    for parser_of_verb in (stop, status):
        parser_of_verb.add_argument("--dir", metavar="DIR", help="directory of the tracer")
        parser_of_verb.add_argument("--config", metavar="FILE", help="configuration file (JSON)")
    _add_format(status)
    return parser


def _verb(verbs: Any, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return made


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=("table", "json"), default="table", help="how to print (default: table)")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--for", dest="for_s", type=float, metavar="S", help="end after S seconds (default: never)")
    parser.add_argument("--dir", metavar="DIR", help="where segments lie (default: /var/lib/whoneeds)")
    parser.add_argument("--period", dest="period_s", type=float, metavar="S", help="seconds between samples (5)")
    parser.add_argument(
        "--sources",
        metavar="LIST",
        help="where connections come from: events,table (default), tracefs,table, table, or psutil",
    )
    parser.add_argument(
        "--packets",
        metavar="WHICH",
        help="packets to take in: headers (default), all, off, or an expression of tcpdump's",
    )
    parser.add_argument("--config", metavar="FILE", help="configuration file (JSON); options go before it")


def _settings(arguments: argparse.Namespace) -> Any:
    import os

    from whoneeds.tracer.settings import make_settings, read_config

    config: Dict[str, Any] = read_config(arguments.config) if arguments.config else {}
    options = {name: getattr(arguments, name, None) for name in ("for_s", "period_s", "sources", "packets")}
    if arguments.dir is not None:
        options["dir"] = os.path.abspath(arguments.dir)
    return make_settings(config, options)


def _once(arguments: argparse.Namespace) -> int:
    import os
    import shutil

    from whoneeds.tracer import clocks, listing
    from whoneeds.tracer.observation import Observation
    from whoneeds.tracer.observers import sees_all_processes
    from whoneeds.tracer.sampler import Sampler, choose_source
    from whoneeds.tracer.settings import make_settings

    settings = make_settings({}, {"sources": arguments.sources})
    at = clocks.now()
    observation = Observation(settings.host, clocks.read_boot_id(), at)
    Sampler(choose_source(settings.sources)).sample(observation, at)
    tables = observation.records(at)
    if arguments.format == "json":
        document = listing.make_document(settings.host, at.wall_ns, sees_all_processes(), tables)
        print(json.dumps(document, sort_keys=True))
        return 0
    fits = sys.stdout.isatty() or "COLUMNS" in os.environ
    print("\n".join(listing.make_lines(tables, shutil.get_terminal_size().columns if fits else None)))
    for line in listing.make_notes(tables[Gap]):
        print(line, file=sys.stderr)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from whoneeds.tracer import daemon

    daemon.run(_settings(arguments), say=lambda line: print(line, file=sys.stderr, flush=True), confine=True)
    return 0


def _load(arguments: argparse.Namespace) -> int:
    import os

    from whoneeds.tracer import translations
    from whoneeds.tracer.bpf.load import load, scope_here
    from whoneeds.tracer.handover import store_descriptors
    from whoneeds.tracer.packets import open_to_hand_over
    from whoneeds.tracer.settings import make_settings, read_config
    from whoneeds.tracer.trial import try_without_privilege

    address = os.environ.get("NOTIFY_SOCKET", "")
    if not arguments.check and not address:
        raise SettingsError(
            "load",
            expected="to be started by the service manager (ExecStartPre=+ of a unit with FileDescriptorStoreMax=)",
            found="no NOTIFY_SOCKET",
            remedy="use --check to see whether the kernel takes the programs, or 'whoneeds trace run' to trace as root",
        )
    loaded = load(scope_here())
    if arguments.check:
        try_without_privilege(loaded)
        print("the kernel takes the programs, and a user without any right can use them", file=sys.stderr)
    else:
        settings = make_settings(read_config(arguments.config) if arguments.config else {}, {})
        wanted = settings.packets if "packets" in settings.sources else "off"
        packets, refused = open_to_hand_over(wanted)
        store_descriptors([*loaded.named(), *packets, *translations.open_to_hand_over()], address)
        if refused is not None:
            print(f"traced without packets: {refused}", file=sys.stderr)
    loaded.close()
    return 0


def _start(arguments: argparse.Namespace) -> int:
    from whoneeds.tracer import supervisor

    print(supervisor.start(_settings(arguments)))
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from whoneeds.tracer import supervisor

    print(supervisor.stop(_settings(arguments).dir))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from whoneeds.tracer.status import render, report

    document = report(_settings(arguments).dir)
    if arguments.format == "json":
        print(json.dumps(document, sort_keys=True))
    else:
        print("\n".join(render(document)))
    return 1 if document["state"] == "failed" else 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after the program's name, beginning with ``trace``; by default those of the process.

    Returns
    -------
    int
        Exit code.
    """
    arguments = build_parser().parse_args(argv)
    verbs = {"once": _once, "run": _run, "start": _start, "load": _load, "stop": _stop, "status": _status}
    try:
        code = verbs[arguments.verb](arguments)
        sys.stdout.flush()
        return code
    except SettingsError as error:
        return _complain(error, 2)
    except WhoneedsError as error:
        return _complain(error, 1)
    except BrokenPipeError:  # whoever read has had enough; say nothing more, not even at exit
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _complain(error: WhoneedsError, code: int) -> int:
    from whoneeds.tracer.text import shown_text

    print(f"whoneeds: {shown_text(str(error))}", file=sys.stderr, flush=True)
    return code
