"""`mt attention`: show what each head of a model attends to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mt.cli.options import Checkpoint, Device, EngineSets, Precision, To, engine_options, refuse

ABOUT = "Show what each head of a model attends to."
PAGE = Path("attention.html")


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL", help="A run directory, a checkpoint in it, a bundle."),
    ],
    source: Annotated[str, typer.Option(metavar="TEXT", help="The sentence to translate.")],
    target: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What the model is made to say; what it finds if none."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help=f"The page; {PAGE}, unless --png or --terminal."
        ),
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A picture of all heads of --part (needs matplotlib)."),
    ] = None,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Print figures of all heads and maps of --part.")
    ] = False,
    part: Annotated[
        str,
        typer.Option(metavar="NAME", help="cross, encoder or decoder, for --png and --terminal."),
    ] = "cross",
    layer: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of these the maps of one layer only.")
    ] = None,
    head: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of these the maps of one head only.")
    ] = None,
    n_best: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Alternatives; as many as beams, at most 5, if left out."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are there already.")
    ] = False,
    sets: EngineSets = None,
    checkpoint: Checkpoint = None,
    precision: Precision = None,
    to: To = None,
    device: Device = None,
) -> None:
    """Show what each head of a model attends to while it translates a sentence.

    Writes one HTML page that needs nothing from outside: each layer and head of the encoder's and
    the decoder's self-attention and of the attention to the source, how sure and how spread each
    is, the alternatives of the beam, and a word alignment. --png draws a picture, --terminal
    prints in colour. The weights are those of the model's own forward pass. With --target the
    model is made to say that translation.

    \b
    Example:  mt attention runs/demo --source "The house is small." -o house.html
              mt attention runs/demo --source "The house is small." --terminal --layer 2
    """
    from mt.attention_maps import extract, html
    from mt.attention_maps.png import render_png
    from mt.attention_maps.terminal import print_lines
    from mt.runtime import console, files

    refuse(
        (len(runs) > 1, str(runs[-1]), "an ensemble has no heads of its own, only its models have"),
        (target is not None and n_best is not None, "--n-best", "a given target has no others"),
    )
    out = PAGE if out is None and png is None and not terminal else out
    for path in (out, png):
        if path is not None and not force:
            files.refuse_existing(path, "choose another name, or replace it with --force")
    options = engine_options(sets, checkpoint, device, precision, to=to)
    engine = extract.open_with_attention(runs[0], options)
    sights = extract.extract(engine, source, target, n_best)
    if png is not None:
        files.write_file(png, render_png(sights[0], part, layer, head))
        console.print_line(f"mt: wrote {png} ({png.stat().st_size >> 10:,} kB)")
    if out is not None:
        languages = engine.profile.languages
        about = {"model": " ".join([runs[0].name, checkpoint or ""]).strip(), "text": source}
        about |= {"source": languages.source, "target": engine.target(to)}
        with files.open_output(out) as stream:
            stream.write(html.render_html(sights, {**about, "forced": target is not None}))
        told = f"{len(sights)} translations" if target is None else "the given translation"
        console.print_line(f"mt: wrote {out} ({out.stat().st_size >> 10:,} kB, {told})")
    if terminal:
        print_lines(sights, part, layer, head)
