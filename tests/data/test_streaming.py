"""Streams: nothing lost, nothing read twice, bounded memory, and a position that leads back."""

import functools
import itertools
import json
import threading
import tracemalloc
from collections import Counter
from dataclasses import replace
from unittest import mock

import pyarrow
import pyarrow.parquet
import pytest

from mt.config import recipe, schema
from mt.config.schema import Languages
from mt.config.validation import validate
from mt.config.yaml_reader import ConfigError, parse
from mt.data import collate
from mt.data.encode import held_out_pairs
from mt.data.pairs import read_pairs
from mt.data.prepare import prepare
from mt.data.streaming import Stream, read_chunks
from mt.errors import DataError
from mt.interfaces import Cursor
from mt.runtime import distributed
from mt.runtime.distributed import SINGLE, World
from mt.special_tokens import UNK
from mt.vocabulary.learn import learn_vocabulary as learn

SHARDS = (260, 130, 400, 10)
PAIRS = [
    [(f"One sentence {k} and number {i}.", f"Ein Satz {k} und Nummer {i}.") for i in range(size)]
    for k, size in enumerate(SHARDS)
]
ALL = Counter(itertools.chain.from_iterable(PAIRS))
KINDS = ("jsonl files", "parquet files", "csv files", "text", "jsonl", "tsv", "several")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same pairs in every form that can be streamed."""
    folder = tmp_path_factory.mktemp("data")
    for k, pairs in enumerate(PAIRS):
        rows = [{"en": source, "de": target} for source, target in pairs]
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, folder / f"{k}.parquet", row_group_size=70)
        (folder / f"{k}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        lines = "".join(f"{source},{target}\n" for source, target in pairs)
        (folder / f"{k}.csv").write_text("en,de\n" + lines)
    flat = list(itertools.chain.from_iterable(PAIRS))
    for side, name in enumerate(("en", "de")):
        (folder / f"all.{name}").write_text("".join(pair[side] + "\n" for pair in flat))
    (folder / "all.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in flat))
    lines = [json.dumps({"en": a, "de": b}) + "\n" for a, b in flat]
    (folder / "all.jsonl").write_text("".join(lines))
    (folder / "some.en").write_text("Unseen one.\n")
    (folder / "some.de").write_text("Ungesehen eins.\n")
    return folder


def sections(form):
    if form == "several":
        first = {"kind": "huggingface", "files": ["0.jsonl", "2.jsonl"]}
        return [first, {"kind": "huggingface", "files": ["1.parquet", "3.parquet"]}]
    if form.endswith(" files"):
        kind = form.removesuffix(" files")
        return [{"kind": "huggingface", "files": [f"{k}.{kind}" for k in range(len(SHARDS))]}]
    if form == "text":
        return [{"kind": "text", "source": "all.en", "target": "all.de"}]
    return [{"kind": form, "file": f"all.{form}"}]


def recipe_of(folder, train, **changes):
    valid = {"kind": "text", "source": "some.en", "target": "some.de"}
    values = {
        "languages": {"source": "en", "target": "de"},
        "data": {"train": train, "valid": valid, "streaming": True, "max_length": 64},
        "vocabulary": {"kind": "whitespace", "size": 5000},
        "batching": {"tokens": 300, "window": 3},
        "training": {"max_steps": 9000},
    }
    for path, value in changes.items():
        section, _, key = path.partition("__")
        values[section][key] = value
    return validate(recipe.Recipe, parse(json.dumps(values), "recipe", folder))


def corpora(folder, form):
    return recipe_of(folder, sections(form)).data.train


def pairs_of(chunks):
    return [pair for chunk in chunks for pair in zip(chunk.source, chunk.target, strict=True)]


@functools.cache
def known():
    sides = zip(*ALL, strict=True)
    settings = schema.VocabularyConfig(kind="whitespace", size=5000)
    return learn(settings, Languages(source="en", target="de"), *sides)


def gathered(stream, cursor):
    """A cursor as a checkpoint keeps it."""
    return replace(cursor, stream=stream.gather(cursor.stream))


def own(stream, cursor):
    """The cursor of this rank, of one that a checkpoint kept."""
    return replace(cursor, stream=stream.own_position(cursor.stream))


def stream_of(settled, processes=None, held=None, log=lambda line: None):
    return Stream(settled, known(), held or {}, 256, processes or SINGLE, log)


def texts(stream, micros):
    """The target sentences of an update, sorted."""
    ids = [stream.window.target(int(row)).tolist() for micro in micros for row in micro]
    return sorted(known().decode_target(ids))


def epoch_of(stream, state=None):
    """The updates of the rest of an epoch, and the state after each."""
    state = Cursor() if state is None else own(stream, state)
    found = []
    for micros, after in stream.updates(state):
        found.append((texts(stream, micros), gathered(stream, after)))
        if after.epoch > state.epoch:
            return found
    raise AssertionError("a stream has no end")


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("form", KINDS)
def test_the_processes_together_read_every_pair_once(folder, form, world_size):
    found = Counter()
    for rank in range(world_size):
        processes = World(rank, world_size)
        chunks = [chunk for chunk, _ in read_chunks(corpora(folder, form), 7, processes, None)]
        assert chunks
        found.update(pairs_of(chunks))
    assert found == ALL


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("form", KINDS)
def test_from_each_position_it_reads_what_follows(folder, form, world_size):
    processes = World(world_size - 1, world_size)
    reading = functools.partial(read_chunks, corpora(folder, form), 7, processes)
    whole = [(pairs_of([chunk]), json.loads(json.dumps(after))) for chunk, after in reading(None)]
    assert len(whole) > 1
    for number, (_, position) in enumerate(whole):
        rest = list(reading(position))
        assert [pairs_of([chunk]) for chunk, _ in rest] == [p for p, _ in whole[number + 1 :]]
        if rest:  # and so from where that one stood
            again = [pairs_of([chunk]) for chunk, _ in reading(json.loads(json.dumps(rest[0][1])))]
            assert again == [p for p, _ in whole[number + 2 :]]


def test_the_order_of_the_shards_goes_by_the_epoch(folder):
    train = corpora(folder, "jsonl files")
    orders = [
        tuple(dict.fromkeys(source.split()[2] for source, _ in pairs_of([c for c, _ in chunks])))
        for chunks in (read_chunks(train, order, SINGLE, None) for order in (1, 1, 3, 5, 7, 9))
    ]
    assert orders[0] == orders[1]
    assert len(set(orders)) > 2


def test_each_epoch_has_its_own_order_of_shards(folder):
    stream = stream_of(recipe_of(folder, sections("parquet files")))
    first = {0: set()}
    for micros, after in stream.updates(Cursor()):
        first[after.epoch] = first.get(after.epoch) or {t.split()[2] for t in texts(stream, micros)}
        if after.epoch == 6:
            break
    assert len(set(map(frozenset, first.values()))) > 2


def test_corpora_are_read_in_turn(folder):
    chunks = read_chunks(corpora(folder, "several"), 1, SINGLE, None)
    first = [chunk.source[0].split()[2] in "02" for chunk, _ in chunks]
    assert first == [True, False, True, True]


# ------------------------------------------------------------------------------- windows


@pytest.mark.parametrize("form", KINDS)
def test_every_pair_is_trained_on_once_an_epoch(folder, form):
    updates = epoch_of(stream_of(recipe_of(folder, sections(form))))
    found = Counter(itertools.chain.from_iterable(target for target, _ in updates))
    assert found == Counter(target for _, target in ALL.elements())
    assert [state.update for _, state in updates] == [*range(1, len(updates)), 0]
    assert updates[-1][1].epoch == 1


@pytest.mark.parametrize("form", KINDS)
def test_from_each_state_the_same_updates_follow(folder, form):
    settled = recipe_of(folder, sections(form))
    whole = epoch_of(stream_of(settled))
    assert len({state.stream["ranks"][0]["window"] for _, state in whole}) > 2
    for number, (_, state) in enumerate(whole[:-1]):
        left = Cursor(**json.loads(json.dumps(state.__dict__)))
        rest = epoch_of(stream_of(settled), left)
        assert [update for update, _ in rest] == [update for update, _ in whole[number + 1 :]]
        assert rest[-1][1].stream["ranks"][0]["counts"] == whole[-1][1].stream["ranks"][0]["counts"]


def test_epochs_differ(folder):
    stream = stream_of(recipe_of(folder, sections("jsonl files")))
    first = epoch_of(stream)
    second = epoch_of(stream_of(stream.recipe), first[-1][1])
    assert [update for update, _ in first] != [update for update, _ in second]
    assert Counter(itertools.chain.from_iterable(u for u, _ in first)) == Counter(
        itertools.chain.from_iterable(u for u, _ in second)
    )


def test_no_update_is_less_than_half_full(folder):
    settled = recipe_of(folder, sections("text"), batching__tokens=700, batching__window=2)
    stream = stream_of(settled)
    for micros, after in stream.updates(Cursor()):
        tokens = sum(int(stream.window.target_lengths[micro].sum()) for micro in micros)
        assert 350 <= tokens <= 1.6 * 700
        batch = collate.collate_pairs(stream.window, micros[0])
        assert batch.source.shape[1] * len(batch.rows) <= 256
        if after.epoch:
            break


@pytest.mark.parametrize("kind", ["jsonl", "huggingface"])
def test_a_window_and_memory_do_not_grow_with_the_corpus(folder, tmp_path, kind):
    """The most that Python and Arrow hold is the same for 2,000 pairs as for 20,000."""
    lines = [json.dumps({"en": f"a {i % 9} b", "de": f"c {i % 7} d"}) for i in range(20_000)]
    for name in ("some.en", "some.de"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    peaks = []
    for size in (2_000, 2_000, 20_000):  # the first warms up
        train = written(tmp_path, kind, lines[:size])
        stream, arrow = stream_of(recipe_of(tmp_path, train)), 0
        tracemalloc.start()
        for _, after in stream.updates(Cursor()):
            assert len(stream.window) <= 500
            arrow = max(arrow, pyarrow.total_allocated_bytes())
            if after.epoch:
                break
        peaks.append((tracemalloc.get_traced_memory()[1], arrow))
        tracemalloc.stop()
    assert peaks[2][0] < 1.2 * peaks[1][0]
    assert peaks[2][1] <= 1.2 * peaks[1][1]


def written(folder, kind, lines):
    """The lines as one file, or as shards of a data set."""
    if kind == "jsonl":
        (folder / "all.jsonl").write_text("\n".join(lines))
        return [{"kind": kind, "file": "all.jsonl"}]
    names = [f"{start}.jsonl" for start in range(0, len(lines), 1000)]
    for number, name in enumerate(names):
        (folder / name).write_text("\n".join(lines[1000 * number : 1000 * (number + 1)]))
    return [{"kind": kind, "files": names}]


# ---------------------------------------------------------------- what is left out, and told


def test_what_is_dropped_is_what_preparing_drops(folder, tmp_path):
    good = [(f"good {i}", f"gut {i}") for i in range(300)]
    bad = [("", "x"), ("x", " "), ("word " * 90, "kurz"), ("Unseen one.", "Ungesehen eins.")] * 3
    mixed = [pair for both in itertools.zip_longest(good, bad) for pair in both if pair]
    rows = [{"en": source, "de": target} for source, target in mixed]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("some.en", "some.de"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    train = [{"kind": "huggingface", "files": ["a.jsonl"]}]
    settled = recipe_of(tmp_path, train, data__streaming=False)
    prepared = prepare(settled, lambda line: None)
    report, lines = prepared.report["corpora"]["train.0"], []
    held = held_out_pairs(read_pairs(settled.data.valid), prepared.vocabulary)
    stream = stream_of(recipe_of(tmp_path, train), held=held, log=lines.append)
    states = [after for _, after in itertools.islice(stream.updates(Cursor()), 30)]
    (end,) = [state for state in states if state.epoch == 1 and state.update == 0]
    assert end.stream["counts"] == {"pairs": report["pairs"], **report["dropped"]}
    assert report["dropped"]["overlap"] == 3
    assert lines[0] == (
        "end of epoch 1: 312 pairs read so far; dropped: 6 empty, 0 nul, 3 overlap, 3 too_long"
    )


def test_rules_drop_from_a_stream_what_they_drop_in_preparing(folder, tmp_path):
    good = [("Unseen one. too", "Ungesehen eins. auch")]
    good += [(f"good {i}", f"gut {i}") for i in range(300)]
    bad = [("", "x"), ("<b> so", "so"), ("in 1984", "in 1948"), ("unseen one", "UNGESEHEN EINS")]
    mixed = [pair for both in itertools.zip_longest(good, bad * 2) for pair in both if pair]
    for side, name in enumerate(("en", "de")):
        (tmp_path / f"a.{name}").write_text("".join(f"{pair[side]}\n" for pair in mixed))
        (tmp_path / f"some.{name}").write_bytes((folder / f"some.{name}").read_bytes())
    train = [{"kind": "text", "source": "a.en", "target": "a.de"}]
    rules = [{"kind": kind} for kind in ("markup", "numbers", "overlap")]
    settled = recipe_of(tmp_path, train, data__clean=rules, data__streaming=False)
    prepared = prepare(settled, lambda line: None)
    report = prepared.report["corpora"]["train.0"]
    assert {reason: n for reason, n in report["dropped"].items() if n} == {
        "empty": 2, "markup": 2, "numbers": 2, "overlap": 2,
    }  # fmt: skip
    stream = stream_of(recipe_of(tmp_path, train, data__clean=rules))
    epoch = epoch_of(stream)
    counts = epoch[-1][1].stream["ranks"][0]["counts"]
    assert Counter(counts) == Counter({"pairs": report["pairs"], **report["dropped"]})
    read = Counter(itertools.chain.from_iterable(lines for lines, _ in epoch))
    assert read.total() == report["kept"]


def test_the_beginning_of_a_stream_is_cleaned_before_a_vocabulary_is_learned(folder, tmp_path):
    pairs = [(f"Unseen one. {i}", f"Ungesehen eins. {i}") for i in range(20)]
    pairs += [("<b> tag", "<b> marke")] * 9
    for side, name in enumerate(("en", "de")):
        (tmp_path / f"a.{name}").write_text("".join(f"{pair[side]}\n" for pair in pairs))
        (tmp_path / f"some.{name}").write_bytes((folder / f"some.{name}").read_bytes())
    train = [{"kind": "text", "source": "a.en", "target": "a.de"}]
    learned = [
        prepare(recipe_of(tmp_path, train, data__clean=rules), lambda line: None).vocabulary
        for rules in ([], [{"kind": "markup"}])
    ]
    ids = [known.encode_target(["marke"])[0] for known in learned]
    assert [row == [UNK] for row in ids] == [False, True]


def test_a_stream_of_which_nothing_is_left_is_refused(folder):
    settled = recipe_of(folder, sections("text"), data__max_length=2)
    with pytest.raises(DataError, match="none of 800 pairs is left; 800 dropped as too_long"):
        next(stream_of(settled).updates(Cursor()))


@pytest.mark.parametrize("damage", ["torn", "gone"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_a_shard_that_cannot_be_read_is_named(folder, tmp_path, kind, damage):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    updates = stream_of(recipe_of(tmp_path, sections(f"{kind} files"))).updates(Cursor())
    next(updates)
    path = tmp_path / f"2.{kind}"
    path.unlink() if damage == "gone" else path.write_bytes(b'{"en": "\xff')
    with pytest.raises(DataError) as error:
        list(updates)
    assert f"] {path}:" in str(error.value)


def test_a_schedule_that_falls_needs_to_know_the_last_step(folder):
    values = {"data__streaming": True, "training__max_steps": None, "training__max_epochs": 2}
    for kind in ("linear", "cosine"):
        with pytest.raises(ConfigError, match=r"needs training\.max_steps: with data"):
            falling(folder, kind, **values)
        falling(folder, kind, **{**values, "training__max_steps": 9000})
        falling(folder, kind, **{**values, "data__streaming": False})
    falling(folder, "constant", **values)


def falling(folder, kind, **changes):
    made = recipe_of(folder, sections("text"), **{k: v for k, v in changes.items() if v})
    values = made.model_dump(mode="json")
    values["schedule"]["kind"] = kind
    values["data"]["streaming"] = changes["data__streaming"]
    values["training"]["max_steps"] = changes["training__max_steps"]
    return validate(recipe.Recipe, parse(json.dumps(values), "recipe", folder))


# ------------------------------------------------------------------------------ preparing


def test_preparing_takes_the_beginning_of_a_stream_only(folder):
    """A billion pairs would take days."""
    train = [{"kind": "demo", "size": 10**9}, *sections("jsonl files")]
    lines = []
    valid = {"kind": "demo", "size": 40, "split": "valid"}
    settled = recipe_of(folder, train, vocabulary__sample=600, data__valid=valid)
    prepared = prepare(settled, lines.append)
    assert prepared.train is None
    assert [line.split() for line in lines if line.startswith("train.")] == [
        ["train.0", "streamed"], ["train.1", "streamed"],
    ]  # fmt: skip
    assert prepared.held_out == held_out_pairs(read_pairs(settled.data.valid), prepared.vocabulary)
    again = prepare(settled, lines.append)
    assert (again.digest, again.vocabulary.digest) == (prepared.digest, prepared.vocabulary.digest)
    assert lines[-1].startswith("streamed pairs, ")


def test_another_size_of_a_streamed_file_is_another_corpus(tmp_path):
    digests = set()
    for line in ('{"en": "a b", "de": "c d"}\n', '{"en": "a b c", "de": "d e"}\n'):
        (tmp_path / "a.jsonl").write_text(line * 9)
        (tmp_path / "some.en").write_text("a b a\n")
        (tmp_path / "some.de").write_text("d\n")
        settled = recipe_of(tmp_path, [{"kind": "huggingface", "files": ["a.jsonl"]}])
        digests.add(prepare(settled, lambda line: None).digest)
        digests.add(prepare(settled, lambda line: None).digest)
    assert len(digests) == 2


def test_an_empty_stream_is_refused_when_it_is_prepared(folder, tmp_path):
    (tmp_path / "some.en").write_text("")
    (tmp_path / "some.de").write_text("")
    settled = recipe_of(tmp_path, [{"kind": "text", "source": "some.en", "target": "some.de"}])
    with pytest.raises(DataError, match=r"data.train.0 \(.*\): there are no pairs in it"):
        prepare(settled, lambda line: None)


# ------------------------------------------------------------------------- several processes


class Together:
    """Processes as threads, and the collectives between them."""

    def __init__(self, world_size):
        self.barrier = threading.Barrier(world_size, timeout=60)
        self.told = [None] * world_size

    def everyone(self, rank, value):
        self.told[rank] = value
        self.barrier.wait()
        told = list(self.told)
        self.barrier.wait()
        return told

    def all_reduce_max(self, world, value):
        return [max(self.everyone(world.rank, value))]

    def all_gather_json(self, world, value):
        return self.everyone(world.rank, value)


def trained(settled, world_size, states=None):
    """What each rank trains on until the epoch's end, and its states."""
    together, results = Together(world_size), [None] * world_size

    def work(rank):
        stream = stream_of(settled, World(rank, world_size))
        results[rank] = epoch_of(stream, states and states[rank])

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world_size)]
    names = ("all_reduce_max", "all_gather_json")
    with mock.patch.multiple(distributed, **{name: getattr(together, name) for name in names}):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(results)
    return results


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_end_an_epoch_at_the_same_update(folder, world_size):
    settled = recipe_of(folder, sections("jsonl files"), batching__tokens=400)
    ranks = trained(settled, world_size)
    assert len({len(updates) for updates in ranks}) == 1
    found = Counter(text for updates in ranks for update, _ in updates for text in update)
    assert max(found.values()) == 1  # no pair twice
    assert len({json.dumps(updates[3][1].stream) for updates in ranks}) == 1  # one checkpoint


def test_processes_go_on_from_what_all_of_them_kept(folder):
    settled = recipe_of(folder, sections("jsonl files"), batching__tokens=400)
    whole = trained(settled, 2)
    states = [updates[2][1] for updates in whole]
    rest = trained(settled, 2, states)
    for before, after in zip(whole, rest, strict=True):
        assert [update for update, _ in after] == [update for update, _ in before[3:]]


def test_another_number_of_processes_is_refused(folder):
    settled = recipe_of(folder, sections("text"))
    state = trained(settled, 2)[0][0][1]
    with pytest.raises(ConfigError, match="left by 2 processes, and there are 1"):
        own(stream_of(settled), state)
