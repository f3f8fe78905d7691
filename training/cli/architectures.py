"""``python -m training architectures``: a table of the autoencoders to choose from."""

from __future__ import annotations

import argparse

from training.networks.autoencoders import ARCHITECTURES, LATENT_SIZE, build_autoencoder, count_macs

_HEADER = ("name", "source", "parameters", "MACs", "code", "loss the thesis reports")


def architecture_rows() -> list[tuple[str, ...]]:
    """Return the table's rows: name, source, parameters, MACs for one frame, code size, loss."""
    rows: list[tuple[str, ...]] = []
    for name, architecture in ARCHITECTURES.items():
        model = build_autoencoder(name).model
        rows.append(
            (
                name,
                architecture.source,
                f"{model.count_params():,}",
                f"{count_macs(model) / 1e6:,.1f} M",
                str(LATENT_SIZE),
                architecture.reported_loss,
            )
        )
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line: it has no options."""


def run(arguments: argparse.Namespace) -> int:
    """Run the command line and return the exit code."""
    rows: list[tuple[str, ...]] = [_HEADER, *architecture_rows()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if index in (2, 3, 4) else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    return 0
