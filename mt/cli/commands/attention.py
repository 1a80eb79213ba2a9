"""`mt attention`: show what each head of a model attends to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mt.cli import options as cli

PAGE = Path("attention.html")


def command(
    runs: Annotated[
        list[Path], Argument(metavar="MODEL", help="A run, a checkpoint in it, or a bundle.")
    ],
    source: Annotated[str, Option(metavar="TEXT", help="The sentence to translate.")],
    target: Annotated[
        str | None, Option(metavar="TEXT", help="Force this translation; default the model's own.")
    ] = None,
    out: Annotated[
        Path | None,
        Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The page; default attention.html, or none with --png or --terminal.",
        ),
    ] = None,
    png: Annotated[
        Path | None, Option(metavar="FILE", help="Draw all heads of --part (needs matplotlib).")
    ] = None,
    terminal: Annotated[
        bool, Option("--terminal", help="Print figures of all heads, and maps of --part.")
    ] = False,
    part: Annotated[
        str, Option(metavar="NAME", help="cross, encoder or decoder, for --png and --terminal.")
    ] = "cross",
    layer: Annotated[
        int | None,
        Option(
            metavar="N", min=1, max=cli.MAX_COUNT, help="Only the maps of this layer of --part."
        ),
    ] = None,
    head: Annotated[
        int | None,
        Option(metavar="N", min=1, max=cli.MAX_COUNT, help="Only the maps of this head of --part."),
    ] = None,
    n_best: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            max=cli.MAX_HYPOTHESES,
            help="Alternatives; default the beams, at most 5.",
        ),
    ] = None,
    force: cli.Force = False,
    sets: cli.EngineSets = None,
    checkpoint: cli.Checkpoint = None,
    precision: cli.Precision = None,
    to: cli.To = None,
    device: cli.Device = None,
    trust: cli.Trust = False,
) -> None:
    """Show what each head of a model attends to while it translates a sentence.

    Writes one self-contained HTML page: the maps of every layer and head (encoder and decoder
    self-attention, attention to the source), the confidence and entropy of each, the alternatives
    of the beam, and a word alignment. --png draws a picture, --terminal prints in colour. The
    weights are those of the model's own forward pass.

    \b
    Example:  mt attention runs/demo --source "The house is small." -o house.html
              mt attention runs/demo --source "The house is small." --terminal --layer 2
    """
    from mt.attention_maps import extract, html
    from mt.attention_maps.png import render_png
    from mt.attention_maps.terminal import print_lines
    from mt.runtime import console, output

    cli.refuse(
        (len(runs) > 1, str(runs[-1]), "an ensemble has no heads of its own, only its models have"),
        (target is not None and n_best is not None, "--n-best", "a given target has no others"),
    )
    out = PAGE if out is None and png is None and not terminal else out
    for path in (out, png):
        if path is not None and not force:
            output.refuse_existing(path, "choose another name, or replace it with --force")
    options = cli.engine_options(sets, checkpoint, device, precision, to=to)
    engine = extract.open_with_attention(runs[0], options)
    maps = extract.extract(engine, source, target, n_best)
    if png is not None:
        with output.open_output(png, binary=True) as stream:
            stream.write(render_png(maps[0], part, layer, head))
        console.print_line(f"mt: wrote {png} ({png.stat().st_size >> 10:,} kB)")
    if out is not None:
        metadata = {
            "model": f"{runs[0].name} {checkpoint or ''}".strip(), "text": source,
            "source": engine.profile.languages.source, "target": engine.target(to),
            "forced": target is not None,
        }  # fmt: skip
        with output.open_output(out) as stream:
            stream.write(html.render_html(maps, metadata))
        count = f"{len(maps)} translations" if target is None else "the given translation"
        console.print_line(f"mt: wrote {out} ({out.stat().st_size >> 10:,} kB, {count})")
    if terminal:
        print_lines(maps, part, layer, head)
