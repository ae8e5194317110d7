# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb ``flows``: what conversations a capture shows."""

import json
import secrets
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from whoneeds.cli.outcome import DONE, DONE_IN_PART, say
from whoneeds.cli.verbs import Examples, add_verb
from whoneeds.model.errors import HostError, SettingsError

if TYPE_CHECKING:
    from whoneeds.flow import Metered, MeterSettings

#: A capture that is shorter is through before anybody wonders.
_LONG_BYTES = 64 << 20
_STANDARD = Path("-")


class FlowFormat(StrEnum):
    """How flows are written."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


TcpTimeout = Annotated[float, typer.Option("--tcp-timeout", metavar="S", min=0, help="Silence that ends a connection.")]
UdpTimeout = Annotated[float, typer.Option("--udp-timeout", metavar="S", min=0, help="Silence that ends a UDP flow.")]
IcmpTimeout = Annotated[float, typer.Option("--icmp-timeout", metavar="S", min=0, help="The same of all other flows.")]


def flows(
    captures: Annotated[
        list[Path],
        typer.Argument(metavar="CAPTURE", help="Files, pcap or pcapng, also compressed by gzip; - is standard input."),
    ],
    form: Annotated[FlowFormat, typer.Option("--format", help="How flows are written.")] = FlowFormat.CSV,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where; - is standard output.")] = _STANDARD,
    tcp_timeout: TcpTimeout = 300.0,
    udp_timeout: UdpTimeout = 60.0,
    icmp_timeout: IcmpTimeout = 60.0,
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Leave out packets whose checksum is wrong, as it is on sending hosts.")
    ] = False,
    host: Annotated[str, typer.Option("--host", metavar="NAME", help="Who captured, for the column.")] = "capture",
) -> None:
    """Meter captures: one row for each conversation in them, whatever it is wrapped in.

    Who began, how it ended, packets and bytes of each side, and what was missed. Each capture is metered by itself, in
    one pass and in memory that does not grow with it. A capture that is damaged is read up to there. What could not be
    metered is said, and the exit code is 4.
    """
    from whoneeds.flow import MeterSettings

    if form is FlowFormat.PARQUET and out == _STANDARD and sys.stdout.isatty():
        raise SettingsError(
            "Parquet is not for terminals", expected="--out FILE, or a pipe", found="a terminal", remedy="name a file"
        )
    settings = MeterSettings(
        tcp_timeout_s=tcp_timeout, udp_timeout_s=udp_timeout, icmp_timeout_s=icmp_timeout,
        check_checksums=checksums, seed=secrets.randbits(63),
    )  # fmt: skip
    write = {FlowFormat.CSV: _write_csv, FlowFormat.JSON: _write_json, FlowFormat.PARQUET: _write_parquet}[form]
    said: list[str] = []
    try:
        with _sink(out) as sink:
            write(sink, _meter(captures, settings, host, said, in_lines=form is FlowFormat.CSV))
            sink.flush()
    except BrokenPipeError:
        raise  # whoever read has enough
    except OSError as error:
        raise HostError("output", expected="a place that can be written", found=f"{out}: {error.strerror}") from error
    for problem in said:
        say(problem)
    raise typer.Exit(DONE_IN_PART if said else DONE)


def _meter(
    captures: list[Path], settings: "MeterSettings", host: str, said: list[str], *, in_lines: bool
) -> Iterator[Any]:
    """Flows of all captures, in batches of lines or columns; what could not be read is added to what is to be said."""
    from whoneeds.flow import meter_capture
    from whoneeds.render.csv_rows import guard_text
    from whoneeds.render.visible import make_visible

    for number, path in enumerate(captures):
        label = "stdin" if path == _STANDARD else path.name
        if [one.name for one in captures].count(path.name) > 1:
            label = f"{number + 1}:{label}"
        with ExitStack() as stack:
            metered = meter_capture(_source(path, stack), settings, host=host, label=guard_text(label))
            try:
                yield from metered.lines() if in_lines else metered.columns()
            except (OSError, EOFError, zlib.error) as error:
                metered.problems.append(f"the file cannot be read further: {error}")
        if metered.problems and not metered.packets and len(captures) == 1:
            raise HostError("this cannot be metered", expected="a capture", found=f"{label}: {metered.problems[0]}")
        said += [f"{make_visible(label)}: {problem}" for problem in metered.problems]
        _say_count(label, metered)


def _say_count(label: str, metered: "Metered") -> None:
    if sys.stderr.isatty():
        from whoneeds.render.visible import make_visible

        say(f"{make_visible(label)}: {metered.packets} packets, {metered.skipped} of them in no flow")


def _source(path: Path, stack: ExitStack) -> Any:
    """A capture as a file, unpacked if it is packed; with progress if it is long and somebody looks."""
    from whoneeds.intake.lines import unpack

    if path == _STANDARD:
        return sys.stdin.buffer
    try:
        file = stack.enter_context(path.open("rb"))
        size = path.stat().st_size
        return (
            _watched(unpack(file), file, size, stack) if size >= _LONG_BYTES and sys.stderr.isatty() else unpack(file)
        )
    except OSError as error:
        raise HostError("capture", expected="a file", found=f"{path}: {error.strerror}") from error


def _watched(unpacked: BinaryIO, file: BinaryIO, size: int, stack: ExitStack) -> "_Watched":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    shown = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    progress = stack.enter_context(Progress(*shown, console=Console(stderr=True), transient=True))
    task = progress.add_task("", total=size)
    return _Watched(unpacked, lambda: progress.update(task, completed=file.tell()))


class _Watched:
    """A file that tells how far it is read."""

    def __init__(self, file: BinaryIO, tell: Callable[[], None]) -> None:
        self._file, self._tell = file, tell

    def readinto(self, room: Any, /) -> int | None:
        self._tell()
        taken: int | None = self._file.readinto(room)  # type: ignore[attr-defined]
        return taken


def _sink(out: Path) -> AbstractContextManager[BinaryIO]:
    """Where rows go; a file appears when it is whole."""
    if out == _STANDARD:
        return nullcontext(sys.stdout.buffer)
    from whoneeds.store.durable import replace_file

    return replace_file(out)


def _names() -> list[str]:
    from whoneeds.model.evidence import WireFlow
    from whoneeds.model.schema import columns

    return [column.name for column in columns(WireFlow)]


def _lists(batch: dict[str, Any]) -> list[list[Any]]:
    return [column if isinstance(column, list) else column.tolist() for column in batch.values()]


def _write_csv(sink: BinaryIO, batches: Iterator[Any]) -> None:
    sink.write((",".join(_names()) + "\r\n").encode("ascii"))
    sink.writelines(batches)


def _write_json(sink: BinaryIO, batches: Iterator[Any]) -> None:
    names, before = _names(), b"[\n"
    for batch in batches:
        rows = [json.dumps(dict(zip(names, row, strict=True))) for row in zip(*_lists(batch), strict=True)]
        sink.write(before + ",\n".join(rows).encode("ascii"))
        before = b",\n"
    sink.write(b"[]\n" if before == b"[\n" else b"\n]\n")


def _write_parquet(sink: BinaryIO, batches: Iterator[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from whoneeds.model.evidence import WireFlow
    from whoneeds.store.columns import arrow_schema

    schema = arrow_schema(WireFlow)
    with pq.ParquetWriter(sink, schema, write_page_checksum=True, compression="zstd") as writer:
        for batch in batches:
            arrays = [pa.array(column, type=field.type) for column, field in zip(batch.values(), schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


EXAMPLES: Examples = {
    flows: (
        "whoneeds flows capture.pcap",
        "whoneeds flows --format parquet --out flows.parquet monday.pcapng tuesday.pcap.gz",
        "tcpdump -w - -c 1000 | whoneeds flows --format json -",
    ),
}


def register(app: typer.Typer) -> None:
    """Add the verb."""
    for verb, examples in EXAMPLES.items():
        add_verb(app, verb, examples)
