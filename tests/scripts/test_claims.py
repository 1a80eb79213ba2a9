"""The claims: verdicts follow from figures, what was measured is kept, the page comes from it."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import faults
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
LETTERS = "abcdefghi"


@pytest.fixture
def claims(monkeypatch):
    """Imports a module of the claims."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield lambda name: importlib.import_module(f"claims.{name}")
    for name in [name for name in sys.modules if name.split(".")[0] == "claims"]:
        del sys.modules[name]


def lab_in(claims, folder, cores=0):
    return claims("lab").Lab(claims("store").Store(folder), "micro", cores)


# ------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([3, 4], [1, 1], "holds"),  # every seed, by more than the margin
        ([3, 2], [1, 1], "inconclusive"),  # one seed is within the margin
        ([2, 2], [1, 1], "does not hold"),  # none is above it
        ([0, 0], [1, 1], "does not hold"),
        ([3], [1], "holds"),
        ([], [], "inconclusive"),
        ([3, 3], [1], "inconclusive"),  # a seed is missing
    ],
)
def test_a_verdict_needs_every_seed_to_agree(claims, one, other, expected):
    assert claims("verdicts").larger(one, other, margin=1.0) == expected


def test_sides_that_cannot_be_compared_are_inconclusive_whatever_the_figures(claims):
    verdicts = claims("verdicts")
    checks = (verdicts.Check("trained far enough", False), verdicts.Check("fair", True))
    assert verdicts.larger([9, 9], [0, 0], 1.0, checks) == "inconclusive"
    assert verdicts.larger([0, 0], [9, 9], 1.0, checks) == "inconclusive"
    assert verdicts.within(5, 0, 9, checks) == "inconclusive"
    assert verdicts.within(5, 0, 9) == "holds"
    assert verdicts.within(10, 0, 9) == "does not hold"


def test_a_claim_is_as_good_as_its_weakest_statement(claims):
    verdicts = claims("verdicts")

    def whole(*each):
        findings = [verdicts.Finding("it is so", verdict, "") for verdict in each]
        return verdicts.Judgement(findings).verdict

    assert whole("holds", "holds") == "holds"
    assert whole("holds", "inconclusive") == "inconclusive"
    assert whole("does not hold", "inconclusive", "holds") == "does not hold"


def test_growth_is_judged_from_its_figures(claims):
    quadratic, judge = claims("d_quadratic"), claims("page").judge
    lengths = [128, 256, 512, 1024]
    assert quadratic.exponent(lengths, [n**2 for n in lengths]) == pytest.approx(2)
    assert quadratic.exponent(lengths, [3 * n for n in lengths]) == pytest.approx(1)
    assert quadratic.goodness([1, 2, 3], [2, 4, 6]) == pytest.approx(1)

    def judged(power):
        times = {
            kind: [[n**p / 1e9] * 3 for n in [*lengths, 2048]]
            for kind, p in (("plain", power), ("fused", 2))
        }
        found = {
            "lengths": [*lengths, 2048], "seconds": times, "weighed": [512, 1024, 2048],
            "bytes": {"plain": [4, 16, 64], "fused": [1, 2, 4]},
        }  # fmt: skip
        return [finding.verdict for finding in judge("d", found).findings]

    assert judged(2) == ["holds"] * 5
    assert judged(1) == ["does not hold", *["holds"] * 4]


# ----------------------------------------------------------------------------- the store


def test_what_was_measured_is_not_measured_again(claims, tmp_path, monkeypatch):
    growth, task = claims("growth"), claims("store").Task
    made = []
    monkeypatch.setattr(growth, "double", lambda folder, n: made.append(n) or 2 * n, raising=False)
    tasks = {f"twice {n}": task("growth:double", {"n": n}) for n in (1, 2)}
    lab = lab_in(claims, tmp_path)
    assert lab.measure(tasks) == {"twice 1": 2, "twice 2": 4}
    again = lab_in(claims, tmp_path)  # another process, after a crash
    tasks["twice 3"] = task("growth:double", {"n": 3})
    assert again.measure(tasks) == {"twice 1": 2, "twice 2": 4, "twice 3": 6}
    assert made == [1, 2, 3]
    assert len(again.used) == 3
    torn = lab.store.path(tasks["twice 1"])
    torn.write_text(torn.read_text()[:20])
    assert lab.measure(tasks)["twice 1"] == 2
    assert made == [1, 2, 3, 1]


def test_what_was_timed_beside_others_decides_nothing_and_is_measured_again(
    claims, tmp_path, monkeypatch
):
    growth, store, verdicts = claims("growth"), claims("store"), claims("verdicts")
    monkeypatch.setattr(growth, "idle", lambda folder: 1, raising=False)
    used = iter([0.0, 1e6, 1e6, 1e6, 0.0, 0.0])  # before and after each of three measurements
    monkeypatch.setattr(store, "_others", lambda: next(used))
    task, judged = (
        store.Task("growth:idle"),
        verdicts.Judgement([verdicts.Finding("it is so", verdicts.HOLDS, "It was.")]),
    )
    found = []
    for alone in (True, False, True):
        lab = lab_in(claims, tmp_path)
        lab.measure({"idle": task}, alone=alone)
        found.append(claims("page").doubt_timings(judged, lab.used).verdict)
    assert found == ["inconclusive", "holds", "holds"]
    assert next(used) == 0.0  # what was not alone took what there was


@pytest.mark.skipif(sys.platform != "linux", reason="nothing tells what others do")
def test_what_others_take_of_the_processors_is_what_is_not_our_own(claims, monkeypatch):
    store, real = claims("store"), os.times
    told = []
    for _ in range(2):
        own = real()
        told.append((store._others(), sum(own[:4])))
        with monkeypatch.context() as patch:
            patch.setattr(store.os, "times", lambda: (0.0, 0.0, 0.0, 0.0))
            told[-1] = (*told[-1], store._others())
        began = time.process_time()
        while time.process_time() - began < 0.3:
            pass
    others, own, every = (after - before for before, after in zip(*told, strict=True))
    assert every - others == pytest.approx(own, abs=0.1)
    assert own >= 0.28  # of 0.29, but for rounding
    assert every > 0.2


def test_a_measurement_is_known_by_all_that_it_depends_on(claims, monkeypatch):
    store = claims("store")
    task = store.Task("training:trained", {"recipe": {"a": 1, "b": 2}})
    same = store.Task("training:trained", {"recipe": {"b": 2, "a": 1}})
    others = [
        store.Task("training:trained", {"recipe": {"a": 1, "b": 3}}),
        store.Task("training:gap", {"recipe": {"a": 1, "b": 2}}),
    ]
    assert task.key == same.key
    assert len({task.key, *(other.key for other in others)}) == 3
    before = task.key
    monkeypatch.setattr(store.torch, "__version__", "0.0")
    assert task.key != before


def test_several_processes_measure_and_failures_are_reported(claims, tmp_path):
    task, failed = claims("store").Task, claims("lab").Failed
    lab = lab_in(claims, tmp_path, cores=2)
    lengths = {f"length {n}": task("d_quadratic:times", {"lengths": [n], "rounds": 1, "least": 0})
               for n in (8, 9)}  # fmt: skip
    found = lab.measure(lengths)
    assert [len(each["plain"][0]) for each in found.values()] == [1, 1]
    with pytest.raises(failed, match=r"(?s)wrong: .*no_such_function"):
        lab.measure({"wrong": task("d_quadratic:no_such_function")})


# ------------------------------------------------------------------------------- recipes


def test_equal_recipes_are_trained_once_and_others_apart(claims, tmp_path):
    recipes, training = claims("recipes"), claims("training")
    lab = lab_in(claims, tmp_path)
    base = recipes.demo(lab)
    again = recipes.changed(base, {"model.dropout": 0.0, "training.seed": 1})
    other = recipes.changed(base, {"model.dropout": 0.1})
    assert training.run_of(tmp_path, base) == training.run_of(tmp_path, again)
    uses = {"training.initialise_from": base}
    runs = {training.run_of(tmp_path, base), training.run_of(tmp_path, other),
            training.run_of(tmp_path, base, uses)}  # fmt: skip
    assert len(runs) == 3
    assert recipes.sets(other, base) == ["model.dropout=0.1"]
    assert "dropout" not in recipes.changed(base, {"model!": {"kind": "rnn"}})["model"]


def test_every_recipe_of_every_size_is_valid(claims, tmp_path):
    """What a claim would train, without training it."""
    lab_module, training = claims("lab"), claims("training")

    class Asked(lab_module.Lab):
        def measure(self, tasks, alone=False):
            asked.extend(tasks.values())
            return dict.fromkeys(tasks, Answer())

    class Answer(dict):
        """Stands for any value."""

        def __missing__(self, key):
            return Answer()

    for size in ("full", "quick", "micro"):
        asked = []
        for letter in LETTERS:
            lab = Asked(claims("store").Store(tmp_path), size, 0)
            claims("page").claim(letter).measure(lab)
        assert len(asked) > 40
        json.dumps([task.arguments for task in asked])
        uses = [task.arguments.get("uses") or {} for task in asked]
        given = [task.arguments["recipe"] for task in asked if "recipe" in task.arguments]
        for recipe in [*given, *(each for use in uses for each in use.values())]:
            training.recipe_of(recipe)


def test_words_are_recalled_over_their_distance(claims):
    recall = claims("recall")
    languages = {"source": "words", "target": "keys"}
    config = recall.Config(size=6, distances=(2, 5), keys=3, languages=languages, seed=4)
    pairs = list(recall.read(config))
    assert pairs == list(recall.read(config))
    for number, pair in enumerate(pairs):
        words, distance = pair.source.split(), (2, 5)[number % 2]
        assert " ".join(words[distance:-distance]) == pair.target
        assert all(word[0] == "f" for word in words[:distance] + words[-distance:])
    copied = next(iter(recall.read(config.model_copy(update={"keys": "all"}))))
    assert copied.source == copied.target
    accuracy = claims("b_distance").recall_of
    assert accuracy("k1 k2", "k1 k2") == 1
    assert accuracy("k2 k1 k3", "k1 k9 k3") == pytest.approx(1 / 3)
    assert accuracy("", "k1") == 0


def test_a_contrast_differs_in_the_number_of_its_last_verb_alone(claims):
    found = list(claims("agreement").contrasts(400, seed=7))
    assert len(found) > 30
    for each in found:
        right, wrong = each.right.rstrip(".").split(), each.wrong.rstrip(".").split()
        assert right[:-1] == wrong[:-1]
        assert right[-1] != wrong[-1]
        assert {right[-1], wrong[-1]} in (
            {"hat", "haben"}, {"ist", "sind"}, {"kann", "können"}, {"muss", "müssen"},
            {"wird", "werden"},
        )  # fmt: skip
    right = "Jede Sängerin weiß, dass der Nachbar, den meine Tänzerin vergisst, die Äpfel gegessen"
    (example,) = (each for each in found if each.right.startswith(right))
    assert example.right.removeprefix(right) == " hat."
    assert example.distance == 7


def test_a_forced_prediction_ends_where_its_end_is(claims):
    until_end = claims("c_parts").until_end
    assert until_end([80, 90, 3, 70]) == [80, 90]
    assert until_end([80, 1, 5, 90]) == [80, 90]


def test_ranks_agree_pair_by_pair(claims):
    agreement = claims("c_parts").rank_agreement
    assert agreement([1, 2, 3], [10, 20, 30]) == 1
    assert agreement([1, 2, 3], [30, 20, 10]) == 0


# ------------------------------------------------------------------------ page and plots


def test_a_plot_is_the_same_bytes_from_the_same_values(claims):
    verdicts = claims("verdicts")
    line = verdicts.Line("one", [1, 2, 4], [1, 3, 2], [0, 2, 1], [2, 4, 3])
    plot = verdicts.Plot("name", "Title", "x", "y", [line, verdicts.Line("two", [1, 2], [1, 1])],
                         log_x=True)  # fmt: skip
    text = claims("plots").svg(plot)
    assert text == claims("plots").svg(plot)
    assert len(text) < 40_000
    root = ElementTree.fromstring(text)
    said = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Title", "x", "y", "one", "two"} <= said
    assert "#ffffff" in text  # a card of its own, on a dark page, too


def test_a_microscopic_claim_runs_and_its_page_comes_from_its_json_alone(
    claims, tmp_path, monkeypatch
):
    reproduce, page = claims("reproduce"), claims("page")
    folder, docs = tmp_path / "micro", tmp_path / "docs"
    assert reproduce.reproduce(folder, "micro", ["d"], cores=0)
    monkeypatch.setattr(claims("store").Task, "run", None)  # nothing may be measured from here on
    page.write(folder, docs)
    first = {path.name: path.read_bytes() for path in docs.rglob("*") if path.is_file()}
    assert set(first) == {"claims.md", "d_time.svg", "d_memory.svg"}
    text = first["claims.md"].decode()
    for part in ("**Claim.**", "**Experiment.**", "**Outcome.**", "*inconclusive*", "d_time.svg"):
        assert part in text
    assert str(tmp_path) not in text
    (docs / "claims" / "old.svg").write_text("of a claim that is no more")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "d.json").write_bytes((folder / "d.json").read_bytes())
    page.write(elsewhere, docs)
    again = {path.name: path.read_bytes() for path in docs.rglob("*") if path.is_file()}
    assert again == first


def test_the_command_line_says_what_there_is(claims, tmp_path, capsys):
    main = claims("__main__").main
    with pytest.raises(SystemExit, match="2"):
        main(["z", "--runs", str(tmp_path)])
    assert "there are a, b, c" in capsys.readouterr().err
    assert main(["--page", "--runs", str(tmp_path), "--size", "micro"]) == 1
    assert "nothing was measured" in capsys.readouterr().err
    assert claims("page").names().keys() == set(LETTERS)


@pytest.mark.slow
def test_a_claim_trains_and_goes_on_after_a_kill(claims, tmp_path, python):
    """The demo's Transformer at its smallest: killed in training, then measured to its end."""
    recipes, training = claims("recipes"), claims("training")
    lab = lab_in(claims, tmp_path / "micro")
    recipe = recipes.changed(recipes.demo(lab), {"training.save_every": 1})
    run = training.run_of(lab.store.folder, recipe)
    code = (
        f"import sys; sys.path[:0] = [{str(SCRIPTS)!r}]\n"
        "import json, pathlib\nfrom claims import training\n"
        "training.trained(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))"
    )
    environment = faults.environment("renamed:4:kill", str(SCRIPTS.parent))
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [python, "-c", code, lab.store.folder, json.dumps(recipe)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    task = claims("store").Task("training:trained", {"recipe": recipe})
    assert lab.store.found(task) is None
    kept = {path.name for path in (run / "checkpoints").glob("step-*")}
    assert kept
    found = lab.measure({"base": task})["base"]
    assert found["validated"][-1] == recipe["training"]["max_steps"]
    assert found["steps"] == sorted(set(found["steps"]))
    assert "test" in found["test"]
    whole = training.trained(tmp_path / "uninterrupted", recipe)
    assert {**whole, "tokens_per_second": 0} == {**found, "tokens_per_second": 0}
